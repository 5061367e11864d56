"""The control record: one controller at a time, whoever comes, goes silent or comes back."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from smlt.core import layout, wire
from smlt.core.control import RENEW_S, ControlDesk, Mailbox
from smlt.core.errors import ConfigError, SmltError, StorageError
from smlt.core.messages import Control, Mail, Round, StepRecord
from tests.support.clocks import FakeClock
from tests.support.stores import DictStore


def take(store: DictStore, clock: FakeClock) -> ControlDesk:
    return ControlDesk.take(store, "digits", clock, clock.sleep)


def record(store: DictStore) -> Control:
    return wire.unpack(store.get(layout.CONTROL), Control)


def test_the_first_controller_takes_the_run_at_once() -> None:
    store, clock = DictStore(), FakeClock()
    assert take(store, clock).epoch == 1
    assert clock.now == 0.0
    assert record(store) == Control(epoch=1, holder=record(store).holder)


def test_a_second_controller_is_refused_while_the_first_one_renews() -> None:
    store, clock = DictStore(), FakeClock()
    first = take(store, clock)
    clock.on_sleep = first.renew
    with pytest.raises(ConfigError, match="'digits' is running already") as caught:
        take(store, clock)
    assert "smlt logs digits" in caught.value.hint
    first.change(wish="still mine")
    assert record(store).epoch == 1


def test_a_controller_is_not_silent_because_the_store_was_out_of_reach_for_who_looks() -> None:
    store, clock = DictStore(), FakeClock()
    first = take(store, clock)
    looks: list[float] = []

    def blocked(operation: str, key: str) -> None:
        if operation == "get" and not looks:
            clock.advance(60.0)
        looks.append(clock.now)

    def renewed_once_the_store_is_back() -> None:
        if len(looks) > 2:
            first.renew()

    store.after, clock.on_sleep = blocked, renewed_once_the_store_is_back
    with pytest.raises(ConfigError, match="'digits' is running already"):
        take(store, clock)
    assert record(store).epoch == 1


def test_a_silent_controller_is_succeeded_and_stops_at_its_next_word() -> None:
    store, clock = DictStore(), FakeClock()
    first = take(store, clock)
    first.change(wish="budget", round=Round(1, 0, ("a",)), stop_now=True)
    second = take(store, clock)
    assert clock.now >= 2 * RENEW_S
    assert (second.epoch, record(store)) == (2, Control(epoch=2, holder=record(store).holder))
    for word in (first.renew, lambda: first.change(wish="mine")):
        with pytest.raises(ConfigError, match="another controller has taken over"):
            word()
    second.change(wish="goal")
    assert record(store).wish == "goal"


@pytest.mark.parametrize("change", [{}, {"closed": True}, {"stop_now": True}])
def test_the_open_round_stays_open_for_the_next_controller_unless_it_was_over(change: dict[str, bool]) -> None:
    store, clock, opened = DictStore(), FakeClock(), Round(3, 1, ("a", "b"))
    take(store, clock).change(round=opened, wish="time limit", **change)
    second = take(store, clock)
    kept = (None, "") if change else (opened, "time limit")
    assert (second.control.round, second.control.wish) == kept
    assert record(store) == second.control
    assert (second.control.closed, second.control.stop_now) == (False, False)
    assert second.control.is_deciding == (not change)


def test_no_two_controllers_write_the_same_record() -> None:
    """So that one whose answer got lost can tell its own from another's."""
    records = [DictStore(), DictStore()]
    for store in records:
        take(store, FakeClock())
    assert records[0].get(layout.CONTROL) != records[1].get(layout.CONTROL)


def test_a_closed_run_is_taken_at_once() -> None:
    store, clock = DictStore(), FakeClock()
    take(store, clock).change(closed=True)
    assert take(store, clock).epoch == 2
    assert clock.now == 0.0
    assert not record(store).closed


@pytest.mark.parametrize("operation", range(4))
@pytest.mark.parametrize("how", ["nothing", "silent", "closed"])
def test_of_two_who_come_at_the_same_time_one_takes_the_run(how: str, operation: int) -> None:
    """The rival is quicker than one operation of the other, and goes on renewing."""
    store, clock = DictStore(), FakeClock()
    if how != "nothing":
        before = take(store, clock)
        if how == "closed":
            before.change(closed=True)
    rivals: list[ControlDesk] = []
    seen = 0

    def overtake(what: str, key: str) -> None:
        nonlocal seen
        seen += 1
        if seen == operation + 1:
            store.before = lambda what, key: None
            rivals.append(take(store, FakeClock()))

    store.before = overtake
    clock.on_sleep = lambda: [rival.change() for rival in rivals] and None
    other = None
    with suppress(ConfigError):
        other = take(store, clock)
    store.before = lambda what, key: None
    assert (other is None) == bool(rivals), "both took the run, or neither"
    for desk in (*rivals, *([other] if other else [])):
        desk.change(wish="mine")
        assert record(store).epoch == desk.epoch


def test_every_word_is_news_to_the_workers_and_keeps_the_rest() -> None:
    store, clock = DictStore(), FakeClock()
    desk = take(store, clock)
    opened = Round(1, 0, ("a", "b"))
    desk.change(round=opened, wish="")
    desk.change(wish="time limit")
    assert record(store) == Control(epoch=1, beat=2, round=opened, wish="time limit", holder=desk.control.holder)


def test_renewing_writes_only_after_a_while() -> None:
    store, clock = DictStore(), FakeClock()
    desk = take(store, clock)
    for now, beat in ((0.9, 0), (1.0, 1), (1.9, 1), (2.0, 2)):
        clock.now = now * RENEW_S
        desk.renew()
        assert record(store).beat == beat
    clock.now = 2.9
    desk.change(wish="x")
    clock.now = 3.8
    desk.renew()
    assert record(store).beat == 3


class Rounds:
    """The wait of a thread that renews: `rounds` times around, one renewal's time apart, then `are_over`."""

    def __init__(self, clock: FakeClock, rounds: int) -> None:
        self.clock, self.left, self.are_over = clock, rounds, threading.Event()

    def __call__(self, stopping: threading.Event, seconds: float) -> bool:
        if not self.left:
            self.are_over.set()
            return stopping.wait()
        self.left -= 1
        self.clock.advance(RENEW_S)
        return False


def test_the_record_is_renewed_whatever_its_controller_is_at_and_closed_at_the_end() -> None:
    store, clock = DictStore(), FakeClock()
    rounds = Rounds(clock, 5)
    with ControlDesk.take(store, "digits", clock, clock.sleep, rounds) as desk:
        assert rounds.are_over.wait(60)
        assert (record(store).beat, record(store).closed) == (5, False)
        desk.change(wish="goal")
        assert (record(store).beat, record(store).wish) == (6, "goal")
    assert record(store) == Control(epoch=1, beat=7, wish="goal", closed=True, holder=desk.control.holder)
    assert not any(thread.name == "smlt-control" for thread in threading.enumerate())


def test_who_was_frozen_does_not_take_the_run_back() -> None:
    """Another controller took it meanwhile; the thread finds that out, or the controller's next look, and both stop."""
    store, clock = DictStore(), FakeClock()
    rounds = Rounds(clock, 1)
    frozen, revived = threading.Event(), threading.Event()

    def wait(stopping: threading.Event, seconds: float) -> bool:
        frozen.set()
        return rounds(stopping, seconds) if revived.wait(60) else True

    with ControlDesk.take(store, "digits", clock, clock.sleep, wait) as first:
        assert frozen.wait(60)
        second = take(store, clock)
        revived.set()
        first._thread.join(60)
        assert first.is_succeeded
        with pytest.raises(ConfigError, match="another controller has taken over"):
            first.renew()
    assert record(store) == second.control
    assert (record(store).epoch, record(store).closed) == (2, False)


def test_a_store_that_fails_the_thread_is_told_to_the_controller() -> None:
    store, clock = DictStore(), FakeClock()

    def fail(what: str, key: str) -> None:
        if what == "compare_and_swap":
            raise StorageError("the disk is gone")

    desk = ControlDesk.take(store, "digits", clock, clock.sleep, Rounds(clock, 1))
    store.before = fail
    with desk:
        desk._thread.join(60)
        with pytest.raises(StorageError, match="the disk is gone"):
            desk.renew()
        store.before = lambda what, key: None
    assert record(store).closed


def put(store: DictStore, number: int, step: int) -> None:
    store.put(layout.mail(1, 0, 0, number), wire.pack(Mail("computing", step)))


def test_mail_is_read_in_its_order_once_and_cleared_away_when_it_may() -> None:
    store = DictStore()
    mailbox = Mailbox(store, 1, 0, 0)
    assert list(mailbox.read()) == []
    for number in (1, 0, 3):
        put(store, number, 10 + number)
    assert [mail.step for mail in mailbox.read()] == [10, 11]
    put(store, 2, 12)
    assert [mail.step for mail in mailbox.read()] == [12, 13]
    assert list(mailbox.read()) == []
    assert len(store.keys("mail/")) == 4, "until what it said is in the log"
    mailbox.clear(0)
    mailbox.clear(0)
    assert store.keys("mail/") == []
    put(store, 4, 14)
    assert [mail.step for mail in mailbox.read()] == [14]


def test_who_takes_over_begins_where_the_mail_was_not_cleared_away() -> None:
    store = DictStore()
    first = Mailbox(store, 1, 0, 0)
    for number in range(3):
        put(store, number, number)
    assert len(list(first.read())) == 3
    first.clear(0)
    put(store, 3, 3)
    assert len(list(first.read())) == 1
    second = Mailbox(store, 1, 0, 0, is_adopted=True)
    put(store, 4, 4)
    assert [mail.step for mail in second.read()] == [3, 4]
    second.clear(0)
    third = Mailbox(store, 1, 0, 0, is_adopted=True)
    assert list(third.read()) == []
    put(store, 5, 5)
    assert [mail.step for mail in third.read()] == [5]


def test_mail_of_others_is_left_alone() -> None:
    store = DictStore()
    put(store, 0, 7)
    for other in ((2, 0, 0), (1, 1, 0), (1, 0, 1)):
        assert list(Mailbox(store, *other).read()) == []
    assert store.keys("mail/") == [layout.mail(1, 0, 0, 0)]


def test_what_is_no_mail_is_said() -> None:
    store = DictStore()
    store.put(layout.mail(1, 0, 0, 0), b"garbage")
    with pytest.raises(SmltError, match="not a message"):
        list(Mailbox(store, 1, 0, 0).read())


def test_mail_with_steps_that_are_not_in_the_log_is_kept() -> None:
    store = DictStore()
    mailbox = Mailbox(store, 1, 0, 0)
    for number, steps in enumerate([(3, 4), (), (5, 6), ()]):
        records = tuple(StepRecord(step, 0, 0.5, 8, 0.1, 0.05, 0.03, 0.02) for step in steps)
        store.put(layout.mail(1, 0, 0, number), wire.pack(Mail("computing", 0, steps=records)))
    assert len(list(mailbox.read())) == 4
    mailbox.clear(4)
    assert len(store.keys("mail/")) == 4
    mailbox.clear(5)
    assert store.keys("mail/") == [layout.mail(1, 0, 0, 2), layout.mail(1, 0, 0, 3)]
    mailbox.clear(7)
    assert store.keys("mail/") == []
