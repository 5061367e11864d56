"""Real runs whose store is out of reach for a while, or holds damaged objects: nobody is lost, and no bit is."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from smlt.core import checkpoint, layout
from smlt.core.run_events import Terms
from smlt.core.runlog import RunEvent
from smlt.core.storage import ObjectStore
from smlt.core.summary import Summary
from tests.support.engines import STEPS, Runs

OUTAGE_S = Terms.silence_s + 2.0
"""Longer than anybody may be silent for."""

AT_FDCWD, RENAME_EXCHANGE = -100, 2


def exchange(one: Path, other: Path) -> None:
    """What one path names is named by the other, at once."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2", str(one))


class Outage:
    """A run's folder becomes a link to itself, through which nothing can be read or written, and a folder again."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.away, self.seconds = folder, folder.with_name(f".{folder.name}"), seconds
        self.timer: threading.Timer | None = None

    def begin(self) -> None:
        if self.timer is None:
            self.away.symlink_to(self.folder)
            exchange(self.folder, self.away)
            self.timer = threading.Timer(self.seconds, exchange, (self.folder, self.away))
            self.timer.start()


def reached(step: int, do: Callable[[], None]) -> Callable[[RunEvent], None]:
    """A listener that does something once the run has come to a step."""

    def listen(event: RunEvent) -> None:
        if event.kind == "steps" and event.data["items"][-1]["step"] >= step:
            do()

    return listen


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("checkpoint_every", ["auto", "3steps"])
def test_a_store_that_is_down_for_a_while_delays_a_run_and_costs_nobody(
    undisturbed: Summary, runs: Runs, workers: int, checkpoint_every: str
) -> None:
    """Trains on or waits, as its checkpoints want, and ends while the store is still down or after that."""
    outage = Outage(runs.runs_dir / "outage", OUTAGE_S)
    job = {"name": "outage", "params": {"slow_s": 0.05}, "checkpoint_every": checkpoint_every}
    summary = runs.train(job=job, workers={"count": workers}, on=reached(4, outage.begin))
    assert outage.timer is not None
    assert (summary.status, summary.replacements, summary.generations) == ("succeeded", 0, 1)
    assert summary.wall_seconds > OUTAGE_S
    assert runs.steps() == list(range(STEPS))
    expected = undisturbed if workers == 2 else runs.train(job={"name": "alone"}, workers={"count": 1})
    assert summary.state_sha256 == expected.state_sha256


def flip(store: ObjectStore, step: int) -> None:
    """One bit of the last part of a checkpoint is another one."""
    manifest = checkpoint.read_manifest(store, layout.manifest(step))
    data = bytearray(store.get(manifest.parts[-1].key))
    data[-1] ^= 1
    store.put(manifest.parts[-1].key, data)


def test_a_run_whose_newest_checkpoint_is_damaged_recovers_from_the_one_before(
    undisturbed: Summary, runs: Runs
) -> None:
    """All ranks are lost at once; that the newest one is damaged, one of them alone can see."""
    damaged: list[int] = []

    def damage() -> None:
        if not damaged:
            damaged.append(checkpoint.valid_steps(runs.store("damaged"))[-1])
            flip(runs.store("damaged"), damaged[0])
            (runs.folder / "go").touch()

    def listen(event: RunEvent) -> None:
        if event.kind == "checkpointed" and event.data["step"] == 8:
            damage()

    summary = runs.train(
        job={"name": "damaged", "checkpoint_every": "4steps", "params": {"hold_at": 10}},
        backend={"chaos": ["kill:step=11"]},
        on=listen,
    )
    assert (summary.status, summary.replacements) == ("succeeded", 2)
    assert damaged == [8]
    assert runs.steps()[:10] == list(range(10))  # of the last ones before the loss nobody may have heard
    assert runs.steps()[-(STEPS - 4) :] == list(range(4, STEPS))
    assert summary.state_sha256 == undisturbed.state_sha256


@pytest.mark.soak
def test_a_store_that_is_down_for_a_minute_costs_nobody(undisturbed: Summary, runs: Runs) -> None:
    outage = Outage(runs.runs_dir / "outage", 60.0)
    job = {"name": "outage", "params": {"slow_s": 0.05}, "checkpoint_every": "3steps"}
    summary = runs.train(job=job, on=reached(4, outage.begin))
    assert (summary.status, summary.replacements, summary.generations) == ("succeeded", 0, 1)
    assert summary.wall_seconds > 60.0
    assert summary.state_sha256 == undisturbed.state_sha256
