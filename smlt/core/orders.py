"""Orders of a user to a run that is being driven: numbered objects in its store; the answers are in its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from smlt.core import layout, wire
from smlt.core.control import Pulse
from smlt.core.errors import AlreadyExists, ConfigError, NotFound
from smlt.core.messages import Control, Order
from smlt.core.runlog import read_events, view_of
from smlt.core.storage import ObjectStore

POLL_S = 0.1
"""Who gave an order looks for the answer so often."""


class OrderBox:
    """Reads the orders for one controller in the sequence of their numbers, each once.

    They stay in the store: who gives one looks for the next free number there.

    Args:
        store: of the run.
        epoch: of the controller; orders for another one are passed over.
    """

    def __init__(self, store: ObjectStore, epoch: int) -> None:
        self._store, self._epoch = store, epoch
        self._next = 0

    def read(self) -> Iterator[tuple[int, Order]]:
        """What has come since the last call, with its number."""
        while True:
            try:
                data = self._store.get(layout.order(self._next))
            except NotFound:
                return
            number, self._next = self._next, self._next + 1
            order = wire.unpack(data, Order)
            if order.epoch == self._epoch:
                yield number, order


def give(
    store: ObjectStore,
    run: str,
    order: Order,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Give an order to whoever drives the run, and wait for the answer.

    Args:
        store: of the run.
        run: its name, for messages.
        order: what is wanted; its epoch is filled in.
        clock: monotonic seconds.
        sleep: waits so many seconds.

    Returns:
        The order's number.

    Raises:
        ConfigError: nobody drives the run, or the answer is no.
    """
    control = _control_of(store, run)
    segment = sum(1 for _ in store.list(layout.LOG))
    pulse = Pulse(store, clock, control)
    number = _put(store, replace(order, epoch=control.epoch))
    while True:
        # In this order: an answer that is given before the record is closed is not missed.
        now, is_silent = pulse.look(), pulse.is_silent
        for read, event in read_events(store, first_segment=segment):
            segment = read
            if event.kind == "order" and event.data["number"] == number:
                if event.data["refused"]:
                    raise ConfigError(f"run {run!r}: {event.data['refused']}")
                return number
        if now.epoch != control.epoch:
            raise ConfigError(f"another controller has taken over run {run!r} meanwhile", "give the order again")
        if now.closed:
            raise _over(store, run)
        if is_silent:
            raise _undriven(run)
        sleep(POLL_S)


def _put(store: ObjectStore, order: Order) -> int:
    number = sum(1 for _ in store.list(layout.ORDERS))
    while True:
        try:
            store.put_if_absent(layout.order(number), wire.pack(order))
        except AlreadyExists:
            number += 1
        else:
            return number


def _control_of(store: ObjectStore, run: str) -> Control:
    try:
        control = wire.read(store, layout.CONTROL, Control)
    except NotFound as error:
        raise _undriven(run) from error
    if control.closed:
        raise _over(store, run)
    return control


def _over(store: ObjectStore, run: str) -> ConfigError:
    view = view_of(store)
    if not view.ended:
        return _undriven(run)
    hint = "--epochs N with more than it had" if view.state == "succeeded" else "from where it stopped"
    return ConfigError(f"run {run!r} is over: {view.state}", f"smlt resume {run} goes on {hint}")


def _undriven(run: str) -> ConfigError:
    return ConfigError(f"nobody drives run {run!r}: its controller is gone", f"go on with it: smlt resume {run}")
