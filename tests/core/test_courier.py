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
from smlt.core.messages import (
    CheckpointDone,
    Control,
    Evaluation,
    Failure,
    Left,
    Mail,
    Ready,
    Rejoined,
    Round,
    StepRecord,
)
from smlt.core.patient_store import PATIENCE_S
from smlt.core.task import TaskShape
from smlt.testing.backend import eventually
from tests.support.clocks import FakeClock
from tests.support.specs import rank_spec
from tests.support.stores import DictStore

READY = Ready("me", TaskShape(10, 0, 3, ()), 5)


class Line:
    """A courier without its thread, its controller's mailbox, and a control record."""

    def __init__(self, grace_s: float = 10.0, epoch: int = 3, lease_s: float = 140.5) -> None:
        self.store, self.clock, self.left = DictStore(), FakeClock(100.0), []
        self.mailbox = Mailbox(self.store, 1, 0, 0)
        spec = rank_spec(orphan_grace_s=grace_s, controller_epoch=epoch, lease_s=lease_s)
        self.courier = Courier(self.store, spec, self.clock, self.left.append, self.clock.sleep)

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
    line.courier.rejoined(Rejoined(4, 1))
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
            rejoined=(Rejoined(4, 1),),
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


def _refuse(operation: str, key: str) -> None:
    raise StorageError("out of reach")


def _allow(operation: str, key: str) -> None:
    del operation, key


def test_the_last_word_waits_for_a_store_that_is_out_of_reach(line: Line) -> None:
    line.store.before = _refuse
    line.clock.on_sleep = lambda: setattr(line.store, "before", _refuse if line.clock.now < 160.0 else _allow)
    line.courier.finish(left=Left("goal"))
    assert [mail.left for mail in line.mailbox.read()] == [Left("goal")]
    assert line.clock.now > 160.0


@pytest.mark.parametrize(("lease_s", "at_most_s"), [(140.5, PATIENCE_S), (15.0, 20.0)])
def test_a_store_that_is_gone_does_not_keep_a_worker_for_ever(lease_s: float, at_most_s: float) -> None:
    line = Line(lease_s=lease_s)
    line.store.before = _refuse
    line.courier.finish(left=Left("goal"))
    assert line.clock.now <= 100.0 + at_most_s


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


def outage(line: Line, seconds: float) -> None:
    """The store is out of reach for so long, as the worker notices."""
    line.store.before = _refuse
    for _ in range(4):
        line.courier.carry()
        line.clock.advance(seconds / 4)
    line.store.before = _allow


def test_while_the_store_is_out_of_reach_the_controller_is_not_missed(line: Line) -> None:
    line.control(beat=1)
    line.round()
    line.courier.step(record(0))
    outage(line, 60.0)
    assert not line.courier.orphaned
    assert [mail.steps for mail in line.round()] == [(record(0),)]
    line.round(9.9)
    assert not line.courier.orphaned
    line.round(0.2)
    assert line.courier.orphaned
    line.control(beat=2)
    line.round()
    assert not line.courier.orphaned
    assert line.left == []


def test_an_outage_before_the_controller_was_heard_again_excuses_nothing_after_it(line: Line) -> None:
    line.control(beat=1)
    outage(line, 60.0)
    line.round()
    line.round(10.1)
    assert line.courier.orphaned


def test_a_store_that_is_out_of_reach_for_too_long_makes_an_orphan_and_ends_it() -> None:
    line = Line(lease_s=1000.0)
    line.control(beat=1)
    line.round()
    outage(line, PATIENCE_S + 9.9)
    assert not line.courier.orphaned
    outage(line, 0.2)
    assert line.courier.orphaned
    outage(line, 10.3)
    assert line.left == []
    outage(line, 0.4)
    line.courier.carry()
    assert line.left


def test_money_is_a_wall_that_no_outage_moves() -> None:
    line = Line(lease_s=15.0)
    line.control(beat=1)
    line.round()
    outage(line, 15.2)
    line.courier.carry()
    assert line.left == [0]


def test_a_store_that_does_not_answer_at_all_is_out_of_reach(line: Line) -> None:
    line.control(beat=1)
    line.round()
    seen = []

    def hang(operation: str, key: str) -> None:
        line.store.before = _allow
        line.clock.advance(30.0)
        seen.append(line.courier.orphaned)

    line.store.before = hang
    line.round()
    assert seen == [False]
    assert not line.courier.orphaned


def test_a_phase_is_no_longer_for_a_store_that_was_out_of_reach(line: Line) -> None:
    line.courier.doing("saving", 3)
    line.round(2.0)
    outage(line, 60.0)
    assert line.round()[0].phase_s == pytest.approx(2.0)
    line.courier.doing("computing", 3)
    assert line.round(3.0)[0].phase_s == pytest.approx(3.0)


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


def member(line: Line) -> Round:
    return Round(1, 2, (line.courier.uuid,))


def test_a_lease_begins_anew_with_a_controller_that_goes_on_with_the_function_and_not_before() -> None:
    line = Line(grace_s=10.0, lease_s=15.0)
    line.control(epoch=4, beat=1, round=member(line), is_deciding=True)
    line.round(9.0)
    assert not line.courier.orphaned
    line.control(epoch=4, beat=2, round=member(line))
    line.round(5.0)
    line.round(14.9)
    assert line.left == []
    line.round(0.2)
    assert line.left == [0]


def test_a_lease_runs_on_while_a_controller_is_deciding() -> None:
    line = Line(grace_s=10.0, lease_s=15.0)
    for beat in range(15):
        line.control(epoch=4, beat=beat, round=member(line), is_deciding=True)
        line.round(1.0)
    assert line.left == []
    line.round(0.1)
    assert line.left == [0]


def test_of_a_controller_that_does_not_go_on_with_it_a_function_is_an_orphan() -> None:
    line = Line(grace_s=10.0, lease_s=15.0)
    for beat in range(15):
        line.control(epoch=4, beat=beat, round=Round(1, 3, ("another",)))
        line.round(1.0)
    assert line.courier.superseded
    assert line.courier.orphaned
    line.round(0.1)
    assert line.left == [0]


def test_who_is_told_to_leave_and_does_not_is_ended() -> None:
    line = Line()
    line.control()
    line.round(30.0)
    for beat in range(5):
        line.control(beat=beat, stop_now=True)
        line.round(1.0)
    assert line.left == []
    line.control(beat=6, stop_now=True)
    line.round(0.1)
    assert line.left == [0]
