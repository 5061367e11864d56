"""Who watches over a rank in a cloud's function: it ends what is to end, and says how what ended ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from smlt.backends.lithops.calls import CallBoard, CallState
from smlt.backends.local.backend import LocalBackend, LocalOptions
from smlt.core import wire
from smlt.core.backend import RankSpec, RunPlace
from smlt.core.plugins import load_registry
from smlt.testing.backend import eventually, spec_for
from smlt.testing.functions import ENTRY
from tests.support.launching import is_running, wait_gone

RUN = """
import sys; from pathlib import Path
from smlt.backends.lithops.supervised import run
sys.exit(run(sys.argv[1], Path(sys.argv[2]).read_bytes(), "calls/x", "0.0.0"))
"""


class Call:
    """One, in a process of its own as in a sandbox."""

    def __init__(self, spec: RankSpec, folder: Path) -> None:
        self.board = CallBoard(load_registry().open_store(spec.store), "calls/x")
        self._packed = folder / "spec"
        self._packed.write_bytes(wire.pack(spec))
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-c", RUN, ENTRY, str(self._packed)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ended(self) -> tuple[CallState, str]:
        """Its last word, and what it printed to where clouds keep it."""
        assert self.process is not None
        _, printed = self.process.communicate(timeout=60)
        state = self.board.state("0.0.0")
        assert state is not None, printed
        return state, printed

    def rank(self) -> psutil.Process:
        """The process that is the rank, once it runs."""
        eventually(lambda: self.board.state("0.0.0") is not None, 60, "the call says that it runs")
        state = self.board.state("0.0.0")
        assert state is not None
        return psutil.Process(state.pid)


@pytest.fixture
def call(tmp_path) -> Iterator:
    """`call(act)`: a call of a function that does this; it is gone afterwards."""
    place = RunPlace("run", tmp_path / "runs")
    calls: list[Call] = []

    def call(act: str, **changes) -> Call:
        spec = replace(spec_for(LocalBackend("local", LocalOptions()), place, act), **changes)
        calls.append(Call(spec, tmp_path))
        return calls[-1]

    yield call
    for each in calls:
        if each.process is not None:
            each.process.kill()
            each.process.communicate()


def test_one_that_returns(call):
    made = call("return")
    made.start()
    state, printed = made.ended()
    assert state == CallState("ended")
    assert "printed by 0.0.0" in printed


def test_one_that_raises(call):
    made = call("raise")
    made.start()
    state, printed = made.ended()
    assert state == CallState("lost", "exit code 1")
    assert "raised by 0.0.0" in printed


def test_one_that_is_killed(call):
    made = call("die", memory_mib=100_000)
    made.start()
    assert made.ended()[0] == CallState("lost", "killed by signal 9")


def test_one_that_the_kernel_kills_for_its_memory(call):
    made = call("die", memory_mib=32)
    made.start()
    state = made.ended()[0]
    assert state.out_of_memory
    assert "of 32.0 MiB" in state.detail


def test_one_that_is_stopped(call):
    made = call("wait")
    made.start()
    rank = made.rank()
    made.board.stop("0.0.0")
    assert made.ended()[0] == CallState("lost", "stopped")
    assert not rank.is_running()


def test_one_that_was_stopped_before_it_started(call):
    made = call("return")
    made.board.stop("0.0.0")
    made.start()
    state, printed = made.ended()
    assert state == CallState("lost", "stopped before it started")
    assert "printed by" not in printed


def test_one_that_comes_to_its_time_limit(call):
    made = call("wait", time_limit_s=0.5)
    made.start()
    assert made.ended()[0] == CallState("lost", "killed at its time limit of 0.5 s")


def test_a_rank_does_not_outlive_who_watches_over_it(call):
    made = call("wait")
    made.start()
    rank = made.rank()
    os.kill(made.process.pid, signal.SIGKILL)
    wait_gone(rank.pid)
    assert not is_running(rank.pid)


def test_a_board_is_cleared_of_its_own_calls_only(call, tmp_path):
    board = call("return").board
    other = CallBoard(
        load_registry().open_store(
            LocalBackend("local", LocalOptions()).object_store(RunPlace("run", tmp_path / "runs"))
        ),
        "calls/other",
    )
    for each in (board, other):
        each.say("0.0.0", CallState("running"))
    board.clear()
    assert board.state("0.0.0") is None
    assert other.state("0.0.0") == CallState("running")
