"""`smlt resume` from end to end."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.cli.conftest import ENDLESS, LINEAR

PRICE = ("--set", "backend.usd_per_gib_s=1")


@pytest.fixture
def finished(smlt, linear):
    """A run `mine` of 12 steps, two epochs, that is finished."""
    done = smlt(*LINEAR, "--epochs", "2", "--set", "job.global_batch=16", "--name", "mine", "-q")
    assert done.returncode == 0, done.stderr
    return linear


def test_a_finished_run_goes_on_for_longer_from_anywhere(smlt, finished, monkeypatch, tmp_path):
    assert smlt("resume", "mine").stderr == (
        "error: run 'mine' is finished: it has trained 2 epochs\n  hint: give more in all: --epochs N\n"
    )
    here = smlt("resume", "mine", "--epochs", "3", "-w", "1", "-o", "json")
    assert here.returncode == 0, here.stderr
    assert "run mine goes on at step 12: task.py:Linear on local" in here.stderr
    assert "as it kept them" not in here.stderr
    summary = json.loads(here.stdout)
    assert (summary["steps"], summary["allocation"]["workers"]) == (18, 1)
    monkeypatch.chdir(tmp_path)
    there = smlt("resume", "mine", "--epochs", "4", "--runs-dir", str(finished / ".smlt/runs"))
    assert there.returncode == 0, there.stderr
    assert "of files travel as it kept them" in there.stderr
    assert "24 in 4 epochs" in there.stdout


def test_a_budget_that_stopped_a_run_is_raised(smlt, linear):
    often = ("--set", "job.checkpoint_every=20steps")
    stopped = smlt(*LINEAR, *ENDLESS, *PRICE, *often, "--budget", "30usd", "--name", "mine")
    assert stopped.returncode == 3, stopped.stderr
    assert re.search(
        r"to go on: smlt resume mine --budget [0-9.]+usd \(about what all of it needs\)\n$", stopped.stderr
    )
    before = json.loads(smlt("status", "-o", "json").stdout)
    enough = str(before["checkpoint_step"] + 5)
    again = smlt("resume", "mine", "--steps", enough)
    assert (again.returncode, "stopped (budget)" in again.stdout) == (3, True), "it is spent"
    assert json.loads(smlt("status", "-o", "json").stdout)["spent_usd"] == before["spent_usd"]
    done = smlt("resume", "mine", "--steps", enough, "--budget", "300usd", "-o", "json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["status"], summary["steps"]) == ("succeeded", int(enough))
    assert summary["cost_usd"]["total"] > before["spent_usd"]


def test_settings_elsewhere_do_not_count_and_set_does(smlt, finished):
    (finished / "smlt.toml").write_text("[job]\nepochs = 9\n[workers]\ncount = 5\n")
    done = smlt("resume", "mine", "--set", "job.epochs=3", "-o", "json", SMLT_WORKERS="7")
    assert json.loads(done.stdout)["allocation"]["workers"] == 2


def test_a_run_that_another_process_drives_is_refused_and_left_alone(start, smlt):
    command = start(*LINEAR, *ENDLESS, "--name", "mine")
    command.wait_for("step ")
    refused = smlt("resume", "mine")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: run 'mine' is running already, in another process\n  hint: ")
    command.wait_for("step ")
    command.interrupt()
    assert command.end()[0] == 130


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("mine", "--epochs", "3", "--set", "job.seed=4"), "run 'mine' was begun with another [job].seed"),
        (("mine", "--epochs", "3", "--set", "job.task=other.py:A"), "[job].task of run 'mine' cannot become"),
        (("mine", "--epochs", "many"), "--epochs: job.epochs: must be a whole number"),
        (("mine", "--epochs", "3", "--set", "train.clip_nrom=1"), "--set: train.clip_nrom: no such key"),
        (("mime", "--epochs", "3"), "did you mean 'mine'?"),
        ((), "Missing argument"),
    ],
)
def test_what_is_no_way_to_go_on_exits_2(smlt, finished, arguments, expected):
    done = smlt("resume", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr


def test_a_run_without_its_files_here_goes_on_with_those_it_kept(smlt, finished):
    (finished / "task.py").unlink()
    done = smlt("resume", "mine", "--epochs", "3")
    assert done.returncode == 0, done.stderr
    assert "as it kept them" in done.stderr


def test_a_run_in_a_folder_that_was_moved(smlt, finished, tmp_path, monkeypatch):
    shutil.move(finished, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    done = smlt("resume", "mine", "--epochs", "3", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model_path"] == str(tmp_path / "moved/.smlt/runs/mine/model.safetensors")


def test_from_python(finished):
    import smlt

    result = smlt.resume("mine", epochs=3, settings={"train.clip_norm": 5.0})
    assert (result.status, result.summary.steps) == ("succeeded", 18)
    with pytest.raises(smlt.SmltError, match="is finished: it has trained 3 epochs"):
        smlt.resume("mine")


def test_a_torn_checkpoint_is_named_and_the_one_before_taken(smlt, linear):
    often = ("--set", "job.global_batch=16", "--set", "job.checkpoint_every=6steps")
    assert smlt(*LINEAR, "--epochs", "2", *often, "--name", "mine", "-q").returncode == 0
    part = next((linear / ".smlt/runs/mine/checkpoints/000000012").rglob("part-00000.safetensors"))
    part.write_bytes(part.read_bytes()[:-1])
    done = smlt("resume", "mine", "--epochs", "3", "-o", "json")
    assert (done.returncode, json.loads(done.stdout)["steps"]) == (0, 18), done.stderr
    assert "run mine goes on at step 6 (the checkpoint at step 12 is not whole): " in done.stderr
