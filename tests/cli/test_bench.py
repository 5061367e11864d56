"""`smlt bench sync` as a user meets it: its output, its mistakes, and what is left when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import psutil
import pytest

from smlt.bench.report import Row
from smlt.core.errors import JobFailed
from tests.cli.conftest import SMLT

TINY = ("--megabytes", "0.02", "--rounds", "2")
ENDLESS = ("--workers", "2", "--megabytes", "0.02", "--rounds", "1000000")


def test_json_is_one_document_with_a_row_for_each_variant_in_each_setting(main):
    code, out, _ = main("bench", "sync", "--workers", "2,3", *TINY, "--peers", "gloo,lambdaml", "-o", "json")
    assert code == 0
    document = json.loads(out)
    assert set(document) == {"schema_version", "date", "machine", "rows", "left_out", "notes"}
    assert document["schema_version"] == 1
    assert {"cores", "load_average", "redis_server", "torch"} <= set(document["machine"])
    assert (document["left_out"], document["notes"]) == ([], [])
    variants = {"gloo", "lambdaml", "shared_memory", "redis", "reducing", "reducing-tcp", "object"}
    cells = {(row["workers"], row["megabytes"], row["variant"]) for row in document["rows"]}
    assert cells == {(workers, 0.02, variant) for workers in (2, 3) for variant in variants}
    for row in document["rows"]:
        assert set(row) == {field.name for field in fields(Row)}
        assert row["rounds"] == 2
        assert row["kind"] == ("peer" if row["variant"] in ("gloo", "lambdaml") else "channel")
        figures = [value for name, value in row.items() if name not in ("variant", "kind", "requests_per_step")]
        assert all(isinstance(value, int | float) or row["variant"] == "gloo" for value in figures)


def test_a_table_has_a_line_a_row_and_talk_goes_elsewhere(main):
    code, out, err = main("bench", "sync", "--workers", "2", *TINY, "--channels", "object", "--peers", "gloo")
    assert code == 0
    head, _, *lines = out.splitlines()
    assert head.split()[:3] == ["N", "MB", "variant"]
    assert [line.split()[2] for line in lines] == ["gloo", "object"]
    assert lines[0].split()[4] == "1.00"
    assert err == "2 ranks, 0.02 MB: gloo, object\n"


def test_a_picture_is_drawn(main, folder):
    from matplotlib import image

    asked = ("--channels", "object", "--peers", "gloo", "--png", "ratios.png")
    code, *_ = main("bench", "sync", "--workers", "2", *TINY, *asked)
    assert code == 0
    assert image.imread(folder / "ratios.png").size


def test_without_a_server_what_needs_one_is_left_out_with_a_note(main, monkeypatch):
    monkeypatch.setattr("smlt.bench.plan.find_server", lambda: None)
    code, out, err = main("bench", "sync", "--workers", "2", *TINY)
    assert code == 0
    found = [line.split()[2] for line in out.splitlines()[2:]]
    assert found == ["gloo", "shared_memory", "reducing", "object", "reducing-tcp"]
    assert "left out: redis: " in err
    assert "left out: lambdaml: " in err
    assert "smlt[bench]" in err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--channels", "objekt"), "--channels: no channel is called 'objekt' (did you mean 'object'?)"),
        (("--peers", "nccl"), "--peers: no peer is called 'nccl'"),
        (("--workers", "1"), "--workers: '1' is not a whole number from 2"),
        (("--megabytes", "nan"), "--megabytes: 'nan' is not a size"),
        (("--rounds", "0"), "--rounds: '0' is not a whole number from 1"),
        (("--redis-password-from", "THERE"), "--redis-password-from: the run's own server has no password"),
        (("--redis-url", "there"), "--redis-url: 'there' is not the URL of a Redis server"),
        (("--png", "ratios.jpg"), "--png ratios.jpg: a picture's name ends in .png"),
        (("--png", "ratios.png", "--peers", "lambdaml"), "add gloo to --peers"),
        (("--rounds",), "requires an argument"),
        (("-o", "xml"), "xml"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(main, asked, said):
    code, out, err = main("bench", "sync", *asked)
    assert (code, out) == (2, "")
    assert said in err
    assert "ranks, " not in err


def test_a_missing_package_is_named_with_how_to_get_it(main, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else name)
    code, out, err = main("bench", "sync")
    assert (code, out) == (2, "")
    assert "gloo needs the package torch" in err
    assert "pip install 'smlt[torch]'" in err


def test_a_failure_is_told_and_the_traceback_of_the_rank_with_debug(main, monkeypatch):
    def fail(*_, **__):
        error = JobFailed("rank 1 failed (redis): ChannelError: it broke", "mend it")
        error.add_note("the rank's traceback")
        raise error

    monkeypatch.setattr("smlt.bench.measure.measure", fail)
    code, out, err = main("bench", "sync")
    assert (code, out, err) == (1, "", "error: rank 1 failed (redis): ChannelError: it broke\n  hint: mend it\n")
    assert "the rank's traceback" in main("bench", "sync", "--debug")[2]


@contextmanager
def measuring(folder: Path, *asked: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """The command in the midst of measuring, and its processes; afterwards these and their files must be gone."""
    command = subprocess.Popen(
        [SMLT, "bench", "sync", *ENDLESS, *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert command.stderr is not None
        assert command.stderr.readline().startswith("2 ranks")
        processes = psutil.Process(command.pid).children(recursive=True)
        places = {Path(process.cwd()) for process in processes if "valkey" in process.name()}
        assert len(places) == 1
        yield command, processes
    finally:
        command.kill()
        command.wait()
    assert psutil.wait_procs(processes, timeout=10.0)[1] == []
    for place in places:
        assert not place.exists()
        assert list(place.parent.glob(f"*{place.name}*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_leaves_nothing(folder, number):
    with measuring(folder) as (command, processes):
        assert len(processes) == 5  # ranks and servers
        command.send_signal(number)
        out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (130, "")
    assert err == f"error: the measurement was interrupted by {number.name}\n"


def test_what_a_command_that_was_killed_left_the_next_one_removes(main):
    channels = "shared_memory,redis,reducing-tcp"  # the store of `reducing` waits a minute for workers before it ends
    with measuring(Path(), "--channels", channels) as (command, processes):
        command.kill()
        command.communicate()
        assert psutil.wait_procs(processes, timeout=10.0)[1] == []
        assert main("bench", "sync", "--workers", "2", *TINY, "--channels", "object", "--peers", "")[0] == 0


def test_a_rank_that_dies_ends_the_command_with_its_name_and_leaves_nothing(folder):
    with measuring(folder, "--channels", "redis,object", "-o", "json") as (command, processes):
        rank = next(process for process in processes if "smlt.bench.rank" in process.cmdline())
        os.kill(rank.pid, signal.SIGKILL)
        out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (1, "")
    assert "is gone: killed by signal 9" in err


def test_a_server_that_dies_ends_the_command_and_leaves_nothing(folder):
    with measuring(folder, "--channels", "redis", "--peers", "") as (command, processes):
        server = next(process for process in processes if "valkey" in process.name())
        os.kill(server.pid, signal.SIGKILL)
        out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (1, "")
    assert "failed (redis" in err
    assert "ChannelError" in err
