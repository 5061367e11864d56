"""Whole runs that someone stops: the user, or another who wants to drive them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from smlt.core import checkpoint, layout, wire
from smlt.core.engine import Interrupts, run
from smlt.core.errors import ConfigError
from smlt.core.messages import Control
from smlt.core.runlog import RunEvent
from smlt.core.summary import Summary
from smlt.testing.backend import eventually
from tests.support.engines import STEPS, Runs

HELD = {"name": "held", "checkpoint_every": "5steps"}


class Session:
    """A run in a thread of its own, held by its task at step 7."""

    def __init__(self, runs: Runs, slow_s: float = 0.0) -> None:
        self.runs, self.interrupts = runs, Interrupts()
        self.events: list[RunEvent] = []
        self.outcome: Any = None
        self.job = HELD | {"params": {"hold_at": 7, "slow_s": slow_s}}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        for rank in (0, 1):
            held = runs.folder / f"held-{rank}"
            eventually(lambda held=held: held.exists() or not self._thread.is_alive(), 60, "all compute step 7")

    def _run(self) -> None:
        try:
            request = self.runs.request(job=self.job)
            self.outcome = run(request, self.runs.registry, listener=self.events.append, interrupts=self.interrupts)
        except BaseException as error:
            self.outcome = error

    def heard(self, kind: str, **data: Any) -> None:
        eventually(
            lambda: any(event.kind == kind and data.items() <= event.data.items() for event in list(self.events)),
            60,
            f"{kind} {data}",
        )

    def let_go(self) -> None:
        (self.runs.folder / "go").touch()

    def end(self) -> Any:
        self._thread.join()
        return self.outcome


def test_cancelled_once_a_run_stops_after_a_checkpoint_and_goes_on_by_name(undisturbed: Summary, runs: Runs) -> None:
    session = Session(runs, slow_s=0.05)  # several beats pass before the last step
    session.interrupts.cancel()
    session.heard("wish", reason="cancelled")
    session.let_go()
    cancelled = session.end()
    assert (cancelled.status, cancelled.stop_reason, cancelled.error) == ("cancelled", "cancelled", {})
    assert 8 <= cancelled.steps < STEPS
    assert checkpoint.valid_steps(runs.store("held"))[-1] == cancelled.steps
    resumed = runs.train(job={"name": "held"})
    assert (resumed.status, resumed.generations) == ("succeeded", 2)
    assert runs.steps() == list(range(cancelled.steps, STEPS))
    assert resumed.state_sha256 == undisturbed.state_sha256
    assert resumed.wall_seconds > cancelled.wall_seconds


def test_cancelled_twice_a_run_stops_at_once_and_goes_on_from_its_last_checkpoint(
    undisturbed: Summary, runs: Runs
) -> None:
    session = Session(runs, slow_s=0.2)
    session.interrupts.cancel()
    session.interrupts.cancel()
    store = runs.store("held")
    eventually(lambda: wire.unpack(store.get(layout.CONTROL), Control).stop_now, 60, "the workers are told to stop")
    session.let_go()
    cancelled = session.end()
    assert (cancelled.status, cancelled.stop_reason) == ("cancelled", "cancelled")
    assert cancelled.steps < STEPS
    saved = checkpoint.valid_steps(store)[-1]
    resumed = runs.train(job={"name": "held"})
    assert runs.steps() == list(range(saved, STEPS))
    assert resumed.state_sha256 == undisturbed.state_sha256


def test_cancelled_twice_a_run_kills_workers_that_do_not_react(runs: Runs) -> None:
    session = Session(runs)
    for _ in range(3):
        session.interrupts.cancel()
    cancelled = session.end()
    assert cancelled.status == "cancelled"


def test_a_run_that_is_being_driven_is_refused_to_another_and_left_alone(undisturbed: Summary, runs: Runs) -> None:
    session = Session(runs)
    store = runs.store("held")
    before = store.get(layout.CODE), len(store.get(layout.CONTROL))
    task = runs.folder / "task.py"
    task.write_text(task.read_text() + "\n# changed meanwhile\n")
    with pytest.raises(ConfigError, match="'held' is running already, in another process"):
        runs.train(job=session.job)
    assert store.get(layout.CODE) == before[0]
    session.let_go()
    assert session.end().state_sha256 == undisturbed.state_sha256
