"""Orders to a run: numbered, for the controller that was there, and answered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smlt.core import layout, wire
from smlt.core.control import SILENT_S, ControlDesk
from smlt.core.errors import ConfigError
from smlt.core.messages import CancelOrder, Order, ScaleOrder
from smlt.core.orders import OrderBox, give
from smlt.core.runlog import RunLog
from tests.support.clocks import FakeClock
from tests.support.stores import DictStore

SCALE, CANCEL = Order(scale=ScaleOrder(3)), Order(cancel=CancelOrder(at_once=True))


class Driven:
    """A run and its controller, which does something between two looks of who gave an order."""

    def __init__(self) -> None:
        self.store, self.clock = DictStore(), FakeClock(1.0)
        self.desk = ControlDesk.take(self.store, "digits", self.clock, self.clock.sleep)
        self.box = OrderBox(self.store, self.desk.epoch)
        self.log = RunLog(self.store, self.clock)
        self.obeyed: list[Order] = []

    def does(self, deed: Callable[[], None]) -> None:
        self.clock.on_sleep = deed

    def answers(self, refused: str = "") -> None:
        def answer() -> None:
            for number, order in self.box.read():
                self.obeyed.append(order)
                self.log.append("order", {"number": number, "order": "scale", "refused": refused})
            self.log.append("spent", {})
            self.log.flush()

        self.does(answer)

    def give(self, order: Order) -> int:
        return give(self.store, "digits", order, self.clock, self.clock.sleep)


@pytest.fixture
def driven() -> Driven:
    return Driven()


def test_orders_reach_the_controller_in_their_sequence_once(driven: Driven) -> None:
    driven.answers()
    assert [driven.give(SCALE), driven.give(CANCEL), driven.give(SCALE)] == [0, 1, 2]
    assert [(order.scale, order.cancel) for order in driven.obeyed] == [
        (SCALE.scale, None), (None, CANCEL.cancel), (SCALE.scale, None),
    ]  # fmt: skip


def test_two_who_give_an_order_at_the_same_time_get_two_numbers(driven: Driven) -> None:
    def overtake(what: str, key: str) -> None:
        if what == "put_if_absent" and key == layout.order(0):
            driven.store.before = lambda what, key: None
            driven.store.put(key, wire.pack(Order(cancel=CancelOrder(), epoch=1)))

    driven.store.before = overtake
    driven.answers()
    assert driven.give(SCALE) == 1
    assert [bool(order.scale) for order in driven.obeyed] == [False, True]


def test_a_refusal_is_the_answer_s_reason(driven: Driven) -> None:
    driven.answers("this run can have 1 to 2 workers")
    with pytest.raises(ConfigError, match="run 'digits': this run can have 1 to 2 workers"):
        driven.give(SCALE)


def test_an_order_for_a_controller_that_is_gone_is_not_the_next_one_s(driven: Driven) -> None:
    with pytest.raises(ConfigError, match="its controller is gone") as caught:
        driven.give(CANCEL)
    assert "smlt resume digits" in caught.value.hint
    assert driven.clock.now >= SILENT_S
    driven.desk = ControlDesk.take(driven.store, "digits", driven.clock, driven.clock.sleep)
    driven.box = OrderBox(driven.store, driven.desk.epoch)
    driven.answers()
    assert driven.give(SCALE) == 1
    assert [order.scale for order in driven.obeyed] == [SCALE.scale]


def test_a_controller_that_is_succeeded_meanwhile_is_said(driven: Driven) -> None:
    successor = []

    def take() -> None:
        driven.clock.on_sleep = lambda: None
        if not successor:
            successor.append(ControlDesk.take(driven.store, "digits", driven.clock, driven.clock.sleep))

    driven.does(take)
    with pytest.raises(ConfigError, match="another controller has taken over"):
        driven.give(SCALE)


def test_a_run_that_ends_meanwhile_is_over(driven: Driven) -> None:
    def finish() -> None:
        driven.log.append("finished", {"status": "succeeded", "stop_reason": "goal"})
        driven.log.flush()
        driven.desk.change(closed=True)

    driven.does(finish)
    with pytest.raises(ConfigError, match="run 'digits' is over: succeeded") as caught:
        driven.give(SCALE)
    assert "smlt resume digits" in caught.value.hint
    assert driven.store.keys(layout.ORDERS) == [layout.order(0)]
    with pytest.raises(ConfigError, match="is over"):
        driven.give(SCALE)
    assert driven.store.keys(layout.ORDERS) == [layout.order(0)], "none is given where nobody is"


def test_an_answer_given_just_before_the_end_counts(driven: Driven) -> None:
    def answer_and_close() -> None:
        for number, _ in driven.box.read():
            driven.log.append("order", {"number": number, "order": "cancel", "refused": ""})
            driven.log.flush()
            driven.desk.change(closed=True)

    driven.does(answer_and_close)
    assert driven.give(CANCEL) == 0


def test_a_run_that_was_never_driven(driven: Driven) -> None:
    with pytest.raises(ConfigError, match="nobody drives run 'new'"):
        give(DictStore(), "new", SCALE, driven.clock, driven.clock.sleep)
