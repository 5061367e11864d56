"""Whole runs that are gone on with by their name: by their own job, with changes, longer, with kept or mended code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smlt.core import checkpoint, layout, wire
from smlt.core.engine import Interrupts, run
from smlt.core.errors import ConfigError
from smlt.core.job import JobSpec
from smlt.core.messages import RunRecord
from smlt.core.resume import Changes, resumption
from smlt.core.runlog import RunEvent, RunLog
from smlt.core.sessions import last_session
from smlt.core.summary import Summary
from tests.support.engines import EPOCHS, STEPS, Runs, nothing_left

PER_EPOCH = STEPS // EPOCHS


class Resuming:
    """A user of the runs in a folder, who is somewhere."""

    def __init__(self, runs: Runs) -> None:
        self.runs, self.cwd = runs, runs.folder
        self.events: list[RunEvent] = []

    def resume(self, name: str = "linear", *, settings: dict[str, Any] | None = None, **flags: Any) -> Summary:
        """As `smlt resume NAME --flag value … --set key=value …` does."""
        store, registry = self.runs.store(name), self.runs.registry
        record = wire.unpack(store.get(layout.RECORD), RunRecord)
        changes = Changes(flags, "--{}".format, keyed=settings)
        request = resumption(store, record, self.runs.runs_dir, self.cwd, changes, registry).request
        self.events = []
        return run(request, registry, listener=self.events.append)

    @property
    def steps(self) -> list[int]:
        return [item["step"] for event in self.events if event.kind == "steps" for item in event.data["items"]]


@pytest.fixture
def user(runs: Runs) -> Resuming:
    return Resuming(runs)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """A run that is finished after two epochs; tests look at it, and are refused."""
    runs = Runs(tmp_path_factory.mktemp("short"))
    with nothing_left(runs):
        runs.train(job={"name": "linear", "epochs": 2})
        yield runs


def cancelled(runs: Runs) -> int:
    """Begin the run and stop it after its first checkpoint; returns the step at which the newest one goes on."""
    interrupts = Interrupts()

    def stop(event: RunEvent) -> None:
        if event.kind == "checkpointed":
            interrupts.cancel()
            interrupts.cancel()

    job = {"name": "linear", "checkpoint_every": "5steps", "params": {"slow_s": 0.05}}
    assert runs.train(job=job, interrupts=interrupts, on=stop).status == "cancelled"
    return checkpoint.valid_steps(runs.store("linear"))[-1]


def test_a_finished_run_goes_on_for_longer(undisturbed: Summary, user: Resuming) -> None:
    """Two epochs and three more are the five of a run that was begun with them, bit for bit."""
    first = user.runs.train(job={"name": "linear", "epochs": 2})
    resumed = user.resume(epochs=EPOCHS)
    assert (resumed.status, resumed.steps, resumed.generations) == ("succeeded", STEPS, 2)
    assert user.steps == list(range(2 * PER_EPOCH, STEPS))
    assert resumed.state_sha256 == undisturbed.state_sha256
    assert resumed.wall_seconds > first.wall_seconds


def test_an_unfinished_run_goes_on_from_its_checkpoint(undisturbed: Summary, user: Resuming) -> None:
    saved = cancelled(user.runs)
    resumed = user.resume(settings={"job.params.slow_s": 0.0})
    assert (resumed.status, user.steps) == ("succeeded", list(range(saved, STEPS)))
    assert resumed.state_sha256 == undisturbed.state_sha256


def test_what_was_changed_last_stays_changed(user: Resuming) -> None:
    user.runs.train(job={"name": "linear", "epochs": 2})
    user.resume(epochs=3, workers=1, settings={"train.clip_norm": 9.0})
    resumed = user.resume(epochs=4)
    assert (resumed.steps, resumed.allocation["workers"]) == (4 * PER_EPOCH, 1)
    (created,) = [event for event in user.events if event.kind == "created"]
    assert created.data["job"]["train"]["clip_norm"] == 9.0


def test_a_run_that_was_scaled_goes_on_with_what_it_was_scaled_to(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    spec = JobSpec.model_validate({"job": {"task": "task.py:Linear"}, "workers": {"count": 2}})
    record = RunRecord("linear", "task.py:Linear", "local", "0", 0.0, spec.to_plain())
    log = RunLog(runs.store("linear"), lambda: 1.0)
    log.append("created", {"job": spec.to_plain(), "folder": str(tmp_path), "code": {}})
    log.append("scale", {"workers": 20})
    log.flush()
    workers = last_session(runs.store("linear"), record).job.workers
    assert (workers.count, workers.max) == (20, 20)


def test_another_backend_goes_on_where_the_run_is_kept(undisturbed: Summary, user: Resuming) -> None:
    user.runs.train(job={"name": "linear", "epochs": 2}, backend={"name": "local", "worker_threads": 1})
    resumed = user.resume(epochs=3, backend="lithops")
    assert (resumed.backend, resumed.steps) == ("lithops", 3 * PER_EPOCH)


@pytest.mark.parametrize("workers", [1, 3])
def test_another_number_of_workers_follows_the_same_course(
    workers: int, trained: dict[int, tuple[Summary, Runs]], user: Resuming
) -> None:
    user.runs.train(job={"name": "linear", "epochs": 2})
    resumed = user.resume(epochs=EPOCHS, workers=workers)
    assert resumed.allocation["workers"] == workers
    assert resumed.metrics["mse"] == pytest.approx(trained[workers][0].metrics["mse"], rel=1e-6)


def test_a_target_that_was_reached_is_replaced_by_a_harder_one(user: Resuming) -> None:
    target = {"metric": "mse", "at_most": 1.0}
    first = user.runs.train(job={"name": "linear", "target": target})
    assert (first.stop_reason, first.steps < STEPS) == ("target", True)
    with pytest.raises(ConfigError, match=f"finished: it reached its target at step {first.steps}") as caught:
        user.resume()
    assert "--set job.target.at_least" in caught.value.hint
    resumed = user.resume(settings={"job.target.at_most": 0.0})
    assert (resumed.status, resumed.stop_reason, resumed.steps) == ("succeeded", "goal", STEPS)


@pytest.mark.parametrize(
    ("flags", "said", "hint"),
    [
        ({}, "is finished: it has trained 2 epochs", "--epochs N"),
        ({"epochs": 1}, "is finished: it has trained 2 epochs", "--epochs N"),
        ({"steps": 12}, "is finished: it has trained 12 steps", "--steps N"),
        ({"seed": 1, "epochs": 3}, r"was begun with another \[job\]\.seed", "go on with what it began with"),
        ({"global_batch": 8, "epochs": 3}, r"was begun with another \[job\]\.global_batch", ""),
        ({"task": "task.py:Other", "epochs": 3}, r"\[job\]\.task of run 'linear' cannot become", "another run"),
        (
            {"settings": {"job.name": "other"}, "epochs": 3},
            r"\[job\]\.name of run 'linear' cannot become",
            "keeps its name",
        ),
        ({"workers": 99, "epochs": 3}, "99 workers were asked for, at most 16 are possible", ""),
        ({"backend": "moon"}, "no backend is called 'moon'", ""),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(short: Runs, flags: dict[str, Any], said: str, hint: str) -> None:
    before = short.view("linear")
    with pytest.raises(ConfigError, match=said) as caught:
        Resuming(short).resume(**flags)
    assert hint in caught.value.hint
    assert short.view("linear") == before


def test_an_unfinished_run_does_not_go_back(user: Resuming) -> None:
    saved = cancelled(user.runs)
    with pytest.raises(ConfigError, match=f"cannot go back: it has trained {saved} steps") as caught:
        user.resume(steps=saved - 1)
    assert "--steps N" in caught.value.hint


# The task's code


def test_at_home_the_files_there_count_and_elsewhere_the_kept_ones(user: Resuming, tmp_path: Path) -> None:
    """So that what made a run fail can be mended, and a run goes on from anywhere."""
    failed = user.runs.train(job={"name": "linear", "params": {"fail_at": 7}, "checkpoint_every": "5steps"})
    assert failed.error["message"] == "the user's own mistake"
    task = user.runs.folder / "task.py"
    whole = task.read_text()
    task.write_text("mended = soon")
    with pytest.raises(ConfigError, match="has no class 'Linear'"):
        user.resume()
    task.write_text(whole.replace('step == params.get("fail_at")', "False"))
    user.cwd = tmp_path.parent
    assert user.resume().error["message"] == "the user's own mistake"
    user.cwd = user.runs.folder
    assert user.resume().status == "succeeded"
    task.unlink()
    assert user.resume(epochs=EPOCHS + 1).steps == STEPS + PER_EPOCH


def test_a_class_that_is_not_kept_must_be_given_again(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    store = runs.store("linear")
    plain = JobSpec.model_validate({"job": {"task": "__main__:Linear"}}).to_plain()
    store.put(layout.RECORD, wire.pack(RunRecord("linear", "__main__:Linear", "local", "0", 0.0, plain)))
    log = RunLog(store, lambda: 1.0)
    log.append("created", {"job": plain, "folder": str(tmp_path), "code": {"sha256": ""}})
    log.flush()
    with pytest.raises(ConfigError, match="a class given in Python, of which no code is kept") as caught:
        Resuming(runs).resume()
    assert "smlt.resume('linear', task=…)" in caught.value.hint


def test_kept_files_that_are_damaged_are_not_run(short: Runs, tmp_path: Path) -> None:
    user, store = Resuming(short), short.store("linear")
    user.cwd, code = tmp_path, store.get(layout.CODE)
    store.put(layout.CODE, code[:-1])
    try:
        with pytest.raises(ConfigError, match="cannot be read whole") as caught:
            user.resume(epochs=3)
    finally:
        store.put(layout.CODE, code)
    assert str(short.folder) in caught.value.hint
