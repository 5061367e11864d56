"""One launched function against a controller that the test plays: claims, orders, and its last word."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from smlt.core import checkpoint, function, layout
from smlt.core.backend import RankSpec
from smlt.core.control import ControlDesk, Mailbox
from smlt.core.courier import Courier
from smlt.core.function import work
from smlt.core.job import JobSpec
from smlt.core.messages import Left, Mail, Round
from smlt.core.plugins import load_registry
from smlt.core.storage import StoreSpec
from smlt.testing.backend import eventually
from tests.support.linear import Linear
from tests.support.specs import rank_spec


class Stage:
    """A run's store, a controller, and one rank that works in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.spec_of_store = StoreSpec("file", (folder / "run").as_uri())
        self.store = load_registry().open_store(self.spec_of_store)
        self.desk = ControlDesk.take(self.store, "run")
        self.mails: list[Mail] = []
        self.threads: list[threading.Thread] = []
        self._boxes: dict[int, Mailbox] = {}

    def spec(self, *, params: dict[str, Any] | None = None, epochs: int = 1, **fields: Any) -> RankSpec:
        job = {"task": "x:Linear", "global_batch": 16, "params": params or {}, "epochs": epochs}
        given = {
            "store": self.spec_of_store,
            "job": JobSpec.model_validate({"job": job}).to_plain(),
            "task_payload": cloudpickle.dumps(Linear),
            "orphan_grace_s": 60.0,
        }
        return rank_spec(**given | fields)

    def start(self, spec: RankSpec) -> threading.Thread:
        thread = threading.Thread(target=work, args=(spec,))
        self.threads.append(thread)
        thread.start()
        return thread

    def read(self, generation: int = 1) -> list[Mail]:
        box = self._boxes.setdefault(generation, Mailbox(self.store, generation, 0, 0))
        self.mails += box.read()
        return self.mails

    def is_ready(self, generation: int = 1) -> bool:
        self.desk.renew()
        return any(mail.ready for mail in self.read(generation))

    def open_round(self, generation: int = 1, wish: str = "", resume_from: str = "") -> None:
        eventually(lambda: self.is_ready(generation), 30, "the worker is ready")
        uuid = next(mail.ready.uuid for mail in self.mails if mail.ready)
        self.desk.change(round=Round(generation, 0, (uuid,), resume_from), wish=wish)

    def last(self, generation: int = 1) -> Mail:
        for thread in self.threads:
            thread.join()
        return self.read(generation)[-1]


@pytest.fixture(autouse=True)
def _no_hard_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A courier ends its process where nothing else helps; this one has other things to do."""
    monkeypatch.setattr(function, "Courier", functools.partial(Courier, leave=lambda code: None))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.desk.change(stop_now=True)
    for thread in stage.threads:
        thread.join()


def test_a_rank_alone_trains_to_its_goal(stage: Stage) -> None:
    stage.start(stage.spec())
    stage.open_round()
    left = stage.last().left
    assert left is not None
    assert (left.reason, left.step, left.epoch) == ("goal", 6, 1)
    steps = [record for mail in stage.mails for record in mail.steps]
    assert [record.step for record in steps] == list(range(6))
    assert all(record.examples == 16 for record in steps)
    assert steps[-1].loss < steps[0].loss
    evaluations = [evaluation for mail in stage.mails for evaluation in mail.evaluations]
    assert [(evaluation.step, evaluation.epoch) for evaluation in evaluations] == [(6, 0)]
    manifest = checkpoint.read_manifest(stage.store, checkpoint.latest_manifest(stage.store))
    state = checkpoint.read_state(stage.store, manifest)
    assert left.state_sha256 == checkpoint.sha256_of(state.arrays, state.extra)
    model = checkpoint.read_arrays(stage.store, layout.MODEL)
    assert left.weights_sha256 == checkpoint.sha256_of(model)


def test_the_platform_s_retry_of_a_function_leaves_the_first_one_alone(stage: Stage) -> None:
    spec = stage.spec()
    stage.start(spec)
    eventually(lambda: bool(list(stage.store.list("mail/"))), 30, "the first one has written")
    claim = stage.store.get(layout.claim(1, 0, 0))
    work(spec)  # comes too late, and returns
    stage.open_round()
    work(spec)
    left = stage.last().left
    assert left is not None
    assert left.reason == "goal"
    assert [mail.left for mail in stage.mails if mail.left] == [left]
    assert stage.store.get(layout.claim(1, 0, 0)) == claim


def test_a_function_of_another_smlt_refuses_and_says_so(stage: Stage) -> None:
    stage.start(stage.spec(smlt_version="0.0.0"))
    failure = stage.last().failure
    assert failure is not None
    assert failure.kind == "ProtocolError"
    assert "started by smlt 0.0.0" in failure.message


def test_what_the_task_prints_travels(stage: Stage) -> None:
    stage.start(stage.spec(params={"print_at": 3}))
    stage.open_round()
    stage.last()
    assert [line for mail in stage.mails for line in mail.output] == ["hello from rank 0"]


@pytest.mark.parametrize(
    ("params", "kind", "message", "step"),
    [
        ({"fail_at": 2}, "TaskError", "the user's own mistake", 2),
        ({"crash_at": 2}, "JobFailed", "smlt itself failed in rank 0: RuntimeError: nobody expected this", 2),
        ({"exit_at": 2}, "TaskError", "the task called exit('that is enough') in rank 0", 2),
        ({"nan_at": 4}, "NonFiniteLoss", "the loss is nan at step 4; the step was not applied", 4),
    ],
)
def test_a_failure_is_the_last_word_with_what_was_done(
    stage: Stage, params: dict[str, Any], kind: str, message: str, step: int
) -> None:
    stage.start(stage.spec(params=params))
    stage.open_round()
    failure = stage.last().failure
    assert failure is not None
    assert (failure.kind, failure.message) == (kind, message)
    assert "Traceback" in failure.traceback
    assert [record.step for mail in stage.mails for record in mail.steps] == list(range(step))


@pytest.mark.parametrize(("params", "message"), [({}, "too late"), ({"fail_at": 3}, "the user's own mistake")])
def test_a_failure_in_the_end_is_told_unless_there_was_one_before(
    stage: Stage, params: dict[str, Any], message: str
) -> None:
    stage.start(stage.spec(params={**params, "fail_in_the_end": True}))
    stage.open_round()
    failure = stage.last().failure
    assert failure is not None
    assert (failure.kind, failure.message) == ("TaskError", message)


def test_a_wish_ends_it_with_a_checkpoint_from_which_another_goes_on(tmp_path: Path, stage: Stage) -> None:
    stage.start(stage.spec())
    stage.open_round()
    undisturbed = stage.last().left
    assert undisturbed is not None

    other = Stage(tmp_path / "other")
    other.start(other.spec())
    other.open_round(wish="time limit")
    left = other.last().left
    assert left is not None
    assert (left.reason, left.step, left.state_sha256) == ("ended", 1, "")
    assert [done.step for mail in other.mails for done in mail.checkpoints] == [1]

    other.mails.clear()
    other.start(other.spec(generation=2))
    other.open_round(2, resume_from=layout.manifest(1))
    resumed = other.last(2).left
    assert resumed is not None
    assert (resumed.reason, resumed.step) == ("goal", 6)
    assert resumed.state_sha256 == undisturbed.state_sha256
    assert [record.step for mail in other.mails for record in mail.steps] == [1, 2, 3, 4, 5]


def test_told_to_stop_it_leaves_at_once_without_a_checkpoint(stage: Stage, tmp_path: Path) -> None:
    stage.start(stage.spec(params={"hold_at": 2, "folder": str(tmp_path)}))
    stage.open_round()
    eventually((tmp_path / "held-0").exists, 30, "it computes step 2")
    stage.desk.change(stop_now=True)
    count = len(stage.read())
    eventually(lambda: len(stage.read()) >= count + 2, 30, "two beats, before the second of which it has heard")
    (tmp_path / "go").touch()
    assert stage.last().left == Left("stopped")
    assert [record.step for mail in stage.mails for record in mail.steps] == [0, 1, 2]
    assert checkpoint.latest_manifest(stage.store) == ""


@pytest.mark.parametrize("word", ["stop_now", "closed"])
def test_told_to_stop_before_the_round_it_leaves(stage: Stage, word: str) -> None:
    stage.start(stage.spec())
    eventually(stage.is_ready, 30, "the worker is ready")
    stage.desk.change(**{word: True})
    assert stage.last().left == Left("stopped")


def test_under_another_controller_it_leaves(stage: Stage) -> None:
    stage.start(stage.spec())
    eventually(stage.is_ready, 30, "the worker is ready")
    stage.desk.change(closed=True)
    stage.desk = ControlDesk.take(stage.store, "run")
    assert stage.last().left in (Left("superseded"), Left("stopped"))


def test_a_controller_that_keeps_its_round_open_has_it_go_on(stage: Stage, tmp_path: Path) -> None:
    stage.start(stage.spec(params={"hold_at": 2, "folder": str(tmp_path)}))
    stage.open_round()
    eventually((tmp_path / "held-0").exists, 30, "it computes step 2")
    stage.desk = ControlDesk.take(stage.store, "run")
    assert stage.desk.epoch == 2
    count = len(stage.read())
    eventually(lambda: len(stage.read()) >= count + 2, 30, "two beats, before the second of which it has heard")
    (tmp_path / "go").touch()
    stage.desk.renew()
    left = stage.last().left
    assert left is not None
    assert (left.reason, left.step) == ("goal", 6)


def test_a_controller_that_ends_its_round_has_it_leave(stage: Stage, tmp_path: Path) -> None:
    stage.start(stage.spec(params={"hold_at": 2, "folder": str(tmp_path)}))
    stage.open_round()
    eventually((tmp_path / "held-0").exists, 30, "it computes step 2")
    stage.desk = ControlDesk.take(stage.store, "run")
    stage.desk.change(round=None)
    count = len(stage.read())
    eventually(lambda: len(stage.read()) >= count + 2, 30, "two beats, before the second of which it has heard")
    (tmp_path / "go").touch()
    assert stage.last().left == Left("superseded")


def test_without_a_controller_it_does_not_wait_for_a_round_for_ever(stage: Stage) -> None:
    stage.start(stage.spec(orphan_grace_s=0.2))
    assert stage.last().left == Left("stopped")


def test_without_a_controller_it_ends_with_a_checkpoint(stage: Stage) -> None:
    stage.start(stage.spec(params={"slow_s": 0.05}, epochs=50, orphan_grace_s=1.5))
    stage.open_round()
    left = stage.last().left
    assert left is not None
    assert left.reason == "ended"
    assert checkpoint.latest_manifest(stage.store) == layout.manifest(left.step)
