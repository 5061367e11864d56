"""A worker's line to its controller, round by round, with a clock and a store that the test commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core import layout, wire
from smlt.core.control import Mailbox
from smlt.core.courier import SILENT_BEAT_S, Courier
from smlt.core.errors import StorageError
from smlt.core.messages import CheckpointDone, Control, Evaluation, Failure, Left, Mail, Ready, StepRecord
from smlt.core.task import TaskShape
from smlt.testing.backend import eventually
from tests.support.clocks import FakeClock
from tests.support.specs import rank_spec
from tests.support.stores import DictStore

READY = Ready("me", TaskShape(10, 0, 3, ()), 5)


class Line:
    """A courier without its thread, its controller's mailbox, and a control record."""

    def __init__(self, grace_s: float = 10.0, epoch: int = 3) -> None:
        self.store, self.clock, self.left = DictStore(), FakeClock(100.0), []
        self.mailbox = Mailbox(self.store, 1, 0, 0)
        spec = rank_spec(orphan_grace_s=grace_s, controller_epoch=epoch)
        self.courier = Courier(self.store, spec, self.clock, self.left.append)

    def control(self, epoch: int = 3, beat: int = 0, **fields: object) -> Control:
        control = Control(epoch, beat, **fields)
        self.store.put(layout.CONTROL, wire.pack(control))
        return control

    def round(self, seconds: float = 0.0) -> list[Mail]:
        self.clock.advance(seconds)
        self.courier.carry()
        return list(self.mailbox.read())


@pytest.fixture
def line() -> Line:
    return Line()


def record(step: int) -> StepRecord:
    return StepRecord(step, 0, 0.5, 8, 0.1, 0.05, 0.03, 0.02)


def test_what_has_gathered_goes_out_in_one_mail(line: Line) -> None:
    line.courier.doing("computing", 7, 1)
    line.courier.ready(READY)
    line.courier.print("hello")
    line.courier.print("again")
    line.courier.step(record(5))
    line.courier.step(record(6))
    line.courier.evaluation(Evaluation(7, 0, {"mse": 1.0}, 0.1))
    line.courier.checkpoint(CheckpointDone(7, 100, 0.2))
    assert line.round() == [
        Mail(
            "computing",
            7,
            1,
            ready=READY,
            output=("hello", "again"),
            steps=(record(5), record(6)),
            evaluations=(Evaluation(7, 0, {"mse": 1.0}, 0.1),),
            checkpoints=(CheckpointDone(7, 100, 0.2),),
        )
    ]
    assert line.round() == []


def test_a_beat_goes_out_when_there_is_nothing_to_say(line: Line) -> None:
    assert line.round() == [Mail("starting", 0)]
    line.courier.doing("building", 0)
    assert line.round(0.9 * SILENT_BEAT_S) == []
    assert [mail.phase for mail in line.round(0.1 * SILENT_BEAT_S)] == ["building"]
    line.courier.step(record(0))
    assert [mail.steps for mail in line.round(0.9 * SILENT_BEAT_S)] == [(record(0),)]
    assert line.round(0.9 * SILENT_BEAT_S) == []


def test_a_beat_says_for_how_long_the_worker_has_been_at_it(line: Line) -> None:
    line.round()
    line.courier.doing("computing", 3)
    line.clock.advance(1.0)
    line.courier.doing("waiting for grad", 3, 1)
    line.clock.advance(2.0)
    line.courier.doing("waiting for grad", 3, 2)  # of another one, but still waiting
    assert line.round(0.5) == [Mail("waiting for grad", 3, 2, phase_s=2.5)]
    line.courier.doing("computing", 4)
    assert line.round(4.0) == [Mail("computing", 4, phase_s=4.0)]


def test_the_last_word_goes_out_with_what_has_gathered(line: Line) -> None:
    line.courier.step(record(0))
    line.courier.finish(left=Left("goal", 1))
    assert list(line.mailbox.read()) == [Mail("starting", 0, steps=(record(0),), left=Left("goal", 1))]


def test_the_last_word_may_be_a_failure(line: Line) -> None:
    failure = Failure("TaskError", "it broke", "mend it", "")
    line.courier.finish(failure=failure)
    assert [mail.failure for mail in line.mailbox.read()] == [failure]


def test_the_last_word_is_tried_again(line: Line) -> None:
    refusals = iter([StorageError("down"), StorageError("down")])
    line.store.before = lambda operation, key: _raise_next(refusals)
    line.courier.finish(left=Left("goal"))
    assert [mail.left for mail in line.mailbox.read()] == [Left("goal")]


def test_a_store_that_is_gone_does_not_keep_a_worker(line: Line) -> None:
    line.store.before = lambda operation, key: _raise_next(iter([StorageError("gone")]))
    line.courier.finish(left=Left("goal"))


def _raise_next(errors: Iterator[StorageError]) -> None:
    error = next(errors, None)
    if error:
        raise error


@given(st.lists(st.tuples(st.sampled_from(["step", "print", "nothing"]), st.sampled_from(["well", "before", "after"]),
                          st.booleans()), max_size=40))  # fmt: skip
def test_nothing_is_lost_or_doubled_when_the_store_fails(history: list[tuple[str, str, bool]]) -> None:
    """Before a write, or after it took effect, when the controller may have read it already."""
    line, outcome = Line(), "well"
    said: list[object] = []
    heard: list[object] = []

    def fails(when: str):
        def hook(operation: str, key: str) -> None:
            if operation == "put" and outcome == when:
                raise StorageError(when)

        return hook

    def read() -> None:
        for mail in line.mailbox.read():
            heard.extend([*mail.steps, *mail.output, *([mail.left] if mail.left else [])])

    line.store.before, line.store.after = fails("before"), fails("after")
    for number, (what, outcome, looks) in enumerate(history):  # noqa: B007
        if what == "step":
            line.courier.step(record(number))
            said.append(record(number))
        elif what == "print":
            line.courier.print(f"line {number}")
            said.append(f"line {number}")
        line.clock.advance(0.3)
        line.courier.carry()
        if looks:
            read()
    outcome = "well"
    line.courier.finish(left=Left("goal"))
    read()
    steps = [item for item in said if isinstance(item, StepRecord)]
    lines = [item for item in said if isinstance(item, str)]
    assert [item for item in heard if isinstance(item, StepRecord)] == steps
    assert [item for item in heard if isinstance(item, str)] == lines
    assert heard[-1:] == [Left("goal")]
    assert len(heard) == len(said) + 1


def test_the_highest_epoch_is_obeyed(line: Line) -> None:
    newest = line.control(epoch=3, beat=1, wish="budget")
    line.round()
    assert line.courier.control == newest
    assert not line.courier.superseded
    line.control(epoch=2, beat=9, stop_now=True)
    line.round()
    assert line.courier.control == newest
    successor = line.control(epoch=4)
    line.round()
    assert line.courier.control == successor
    assert line.courier.superseded


def test_without_a_control_record_a_worker_waits_its_grace(line: Line) -> None:
    line.round(9.9)
    assert not line.courier.orphaned
    line.round(0.2)
    assert line.courier.orphaned


def test_a_controller_that_falls_silent_makes_an_orphan_until_it_is_heard_again(line: Line) -> None:
    line.control(beat=1)
    line.round()
    line.control(beat=2)
    line.round(6.0)
    line.round(9.0)
    assert not line.courier.orphaned
    line.round(3.0)
    assert line.courier.orphaned
    assert line.courier.orphaned_for_s == pytest.approx(2.0)
    line.control(beat=3)
    line.round()
    assert not line.courier.orphaned
    assert line.courier.orphaned_for_s == 0.0


def test_a_store_out_of_reach_is_silence_too(line: Line) -> None:
    line.control(beat=1)
    line.round()

    def down(operation: str, key: str) -> None:
        raise StorageError("unreachable")

    line.store.before = down
    line.courier.step(record(0))
    line.clock.advance(11.0)
    line.courier.carry()
    assert line.courier.orphaned
    line.store.before = lambda operation, key: None
    line.control(beat=2)
    assert [mail.steps for mail in line.round()] == [(record(0),)]
    assert not line.courier.orphaned


def test_a_control_record_of_another_smlt_is_silence_too(line: Line) -> None:
    line.store.put(layout.CONTROL, b"\x00 not ours")
    line.round(10.5)
    assert line.courier.orphaned


def test_a_worker_that_does_not_react_is_ended_the_hard_way(line: Line) -> None:
    line.round(20.4)
    assert line.left == []
    line.round(0.2)
    assert line.left == [0]


def test_the_thread_carries_until_the_last_word() -> None:
    line = Line()
    wanted = line.control(beat=5, wish="enough")
    line.courier.start()
    line.courier.ready(READY)
    eventually(lambda: line.courier.control == wanted, 20, "the control record was read")
    line.courier.finish(left=Left("ended"))
    mails = list(line.mailbox.read())
    assert [mail.ready for mail in mails if mail.ready] == [READY]
    assert mails[-1].left == Left("ended")
