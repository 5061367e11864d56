"""`smlt sweep`: real runs, interleaved; what is measured stays, what was broken off is taken again."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal

import pytest

from tests.cli.conftest import Command

JOB = ("sweep", "task.py:Linear", "--steps", "4")


def rows(folder, table, name="sweep"):
    with (folder / f".smlt/runs/sweeps/{name}/{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sweep(main, *arguments):
    code, out, _ = main(*JOB, *arguments, "-o", "json")
    return code, json.loads(out)


def test_every_fleet_is_measured_as_often_as_asked_and_the_tables_are_tidy(linear, main) -> None:
    code, document = sweep(main, "--workers", "1,2", "--repeat", "2")
    assert (code, document["wanted"], document["measured"]) == (0, 4, 4)
    runs, steps, medians = (rows(linear, table) for table in ("runs", "steps", "medians"))
    assert sorted((row["backend"], row["workers"], row["repeat"]) for row in runs) == [
        ("local", workers, repeat) for workers in "12" for repeat in "01"
    ]
    assert {row["status"] for row in runs} == {"succeeded"}
    assert len({row["weights_sha256"] for row in runs if row["workers"] == "1"}) == 1
    assert [row["repeat"] for row in runs] == ["0", "0", "1", "1"], "a repeat comes before the next one"
    assert len(steps) == 4 * 4
    assert all(float(row["seconds"]) > 0 for row in steps)
    for row in medians:
        assert float(row["low"]) <= float(row["median"]) <= float(row["high"])
        assert row["runs"] == "2"
    assert {row["quantity"] for row in medians} >= {"wall_seconds", "step_seconds_p50", "cost_usd"}


def test_the_same_command_again_measures_nothing_and_a_larger_grid_what_is_missing(linear, main) -> None:
    sweep(main, "--workers", "1", "--repeat", "1")
    before = rows(linear, "runs")
    assert sweep(main, "--workers", "1", "--repeat", "1")[1]["measured"] == 1
    assert rows(linear, "runs") == before
    document = sweep(main, "--workers", "1,2", "--repeat", "1")[1]
    assert document["measured"] == 2
    assert before[0] in rows(linear, "runs")


def test_what_was_killed_goes_on_with_what_is_missing(linear, main) -> None:
    asked = ("--workers", "1", "--repeat", "2", "--set", "job.params.slow_s=0.3")
    command = Command(*JOB, *asked)
    command.wait_for("local-w1, repeat 1 of 2: succeeded")
    os.killpg(command.process.pid, signal.SIGKILL)
    command.process.wait()
    for pipe in (command.process.stdout, command.process.stderr):
        pipe.close()
    first = rows(linear, "runs")
    assert [row["run"] for row in first] == ["local-w1-r0"]
    code, document = sweep(main, *asked)
    assert (code, document["measured"]) == (0, 2)
    assert rows(linear, "runs")[0] == first[0]
    assert rows(linear, "runs")[1]["run"].startswith("local-w1-r1")


def test_a_run_that_fails_is_told_and_taken_again_the_next_time(linear, main) -> None:
    broken = (
        linear / "task.py"
    ).read_text() + "\n\nclass Broken(Linear):\n    def adapt(self):\n        raise OSError\n"
    (linear / "task.py").write_text(broken)
    asked = ("sweep", "task.py:Broken", "--steps", "4", "--workers", "1", "--repeat", "1")
    code, out, err = main(*asked)
    assert code == 1
    assert "local-w1, repeat 1 of 1: failed" in err
    assert "0 of 1 runs" in out
    main(*asked)
    assert (linear / ".smlt/runs/sweeps/sweep/runs/local-w1-r0-again1").is_dir()


def test_another_job_under_the_same_name_is_refused(linear, main) -> None:
    sweep(main, "--workers", "1", "--repeat", "1")
    code, _, err = main(*JOB, "--workers", "1", "--repeat", "1", "--set", "job.seed=3")
    assert code == 2
    assert "was begun with another job" in err
    assert sweep(main, "--workers", "1", "--repeat", "1", "--set", "job.seed=3", "--name", "other")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workers", "1,x"), "'x' is no number of workers"),
        (("--workers", "0"), "'0' is no number of workers"),
        (("--workers", ""), "--workers '' is empty"),
        (("--backends", "local,local"), "has one of them twice"),
        (("--backends", "nowhere"), "nowhere"),
        (("--name", "../x"), "--name '../x'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything(linear, main, arguments, said) -> None:
    code, out, err = main(*JOB, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert not (linear / ".smlt/runs/sweeps").exists()


def test_two_sweeps_do_not_measure_in_one_place_at_once(linear, main) -> None:
    sweep(main, "--workers", "1", "--repeat", "1")
    with (linear / ".smlt/runs/sweeps/sweep/lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, err = main(*JOB, "--workers", "1", "--repeat", "1")
    assert code == 2
    assert "another `smlt sweep` measures in" in err
