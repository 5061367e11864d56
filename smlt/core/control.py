"""The controller's side of the run's object store: the control record it alone may change, and the mail it reads."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

from smlt.core import layout, wire
from smlt.core.errors import AlreadyExists, ConfigError, Conflict, NotFound, SmltError
from smlt.core.messages import Control, Mail
from smlt.core.storage import ObjectStore

RENEW_S = 1.0
"""The control record's beat grows so often while the controller lives."""

SILENT_S = 2.5 * RENEW_S
"""A control record whose beat has not grown for so long has no controller."""


class Pulse:
    """Watches from outside whether a run has a controller.

    Args:
        store: of the run.
        clock: monotonic seconds.
        control: the record as it was found.
    """

    def __init__(self, store: ObjectStore, clock: Callable[[], float], control: Control) -> None:
        self._store, self._clock = store, clock
        self._control, self._looked_at, self._silent_s = control, clock(), 0.0

    def look(self) -> Control:
        """The record as it is now."""
        control = wire.unpack(self._store.get(layout.CONTROL), Control)
        now = self._clock()
        if (control.epoch, control.beat) != (self._control.epoch, self._control.beat):
            self._silent_s = 0.0
        else:  # a look that took long says little: the controller may have had as little of the store
            self._silent_s += min(now - self._looked_at, RENEW_S)
        self._control, self._looked_at = control, now
        return control

    @property
    def is_silent(self) -> bool:
        """Whether the beat had not grown for so long, when looked at last, that nobody drives the run."""
        return self._silent_s >= SILENT_S


class ControlDesk:
    """Holds the control record of one run; made by `take`, so that there is one at a time.

    As a context it renews the record in a thread of its own, whatever the controller is at, and closes it at the end.

    Args:
        store: of the run.
        clock: monotonic seconds.
        wait: until an event is set, so many seconds at most; returns whether it is.
    """

    def __init__(
        self,
        store: ObjectStore,
        clock: Callable[[], float],
        control: Control,
        version: str,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self._store, self._clock, self._wait = store, clock, wait
        self._control, self._version = control, version
        self._renewed_at = clock()
        self._is_succeeded = False
        self._failure: SmltError | None = None
        self._lock, self._stopping = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="smlt-control", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the record, unless another controller has taken over."""
        self._stopping.set()
        self._thread.join()
        if not self._is_succeeded:
            self.change(closed=True)

    @classmethod
    def take(
        cls,
        store: ObjectStore,
        run: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> ControlDesk:
        """Become the controller of a run; the round that was open, if one was, and the wish stay in the record.

        Raises:
            ConfigError: another controller drives it.
        """
        try:
            data, version = store.get_versioned(layout.CONTROL)
        except NotFound:
            control = Control(epoch=1, holder=uuid.uuid4().hex)
            return cls(store, clock, control, _create(store, run, control), wait)
        before = wire.unpack_object(data, layout.CONTROL, Control)
        if not before.closed and _is_alive(store, before, clock, sleep):
            raise _driven(run)
        control = Control(epoch=before.epoch + 1, holder=uuid.uuid4().hex)
        if not before.closed and not before.stop_now:
            # The functions in the open round stay there, until this controller has seen whether it can go on with them.
            control = replace(control, round=before.round, wish=before.wish, is_deciding=True)
        try:
            # By the version that was found silent: of several who saw it so, one takes the run.
            version = store.compare_and_swap(layout.CONTROL, wire.pack(control), version)
        except (Conflict, NotFound) as error:
            raise _driven(run) from error
        return cls(store, clock, control, version, wait)

    @property
    def control(self) -> Control:
        """The record as it is now."""
        return self._control

    @property
    def epoch(self) -> int:
        """Which controller this is."""
        return self._control.epoch

    @property
    def is_succeeded(self) -> bool:
        """Whether another controller has taken over: this one may write nothing of the run any more."""
        return self._is_succeeded

    def change(self, **fields: Any) -> None:
        """Replace parts of the record; all workers see them with their next beat.

        Raises:
            ConfigError: another controller has taken over.
        """
        with self._lock:
            self._control = replace(self._control, beat=self._control.beat + 1, **fields)
            try:
                self._version = self._store.compare_and_swap(layout.CONTROL, wire.pack(self._control), self._version)
            except (Conflict, NotFound) as error:
                self._is_succeeded = True
                raise ConfigError("another controller has taken over this run", "this one stops") from error
            self._renewed_at = self._clock()

    def renew(self) -> None:
        """Show that the controller lives, where it has not done so for a while.

        Raises:
            ConfigError: another controller has taken over.
            StorageError: the record cannot be written, which the thread may have found.
        """
        with self._lock:
            if self._failure:
                raise self._failure
            if self._clock() - self._renewed_at >= RENEW_S:
                self.change()

    def _keep_renewing(self) -> None:
        while not self._wait(self._stopping, RENEW_S / 10):
            try:
                self.renew()
            except SmltError as error:
                self._failure = error  # the controller is told with its next look
                return


def _create(store: ObjectStore, run: str, control: Control) -> str:
    try:
        return store.put_if_absent(layout.CONTROL, wire.pack(control))
    except AlreadyExists as error:
        raise _driven(run) from error


def _is_alive(store: ObjectStore, before: Control, clock: Callable[[], float], sleep: Callable[[float], None]) -> bool:
    pulse = Pulse(store, clock, before)
    while not pulse.is_silent:
        sleep(RENEW_S / 10)
        now = pulse.look()
        if (now.epoch, now.beat) != (before.epoch, before.beat):
            return True
    return False


def _driven(run: str) -> ConfigError:
    return ConfigError(f"run {run!r} is running already, in another process", f"watch it with: smlt logs {run} -f")


class Mailbox:
    """Reads one worker's messages in their order, each once; `clear` removes them once they need not be read again.

    Args:
        store: of the run.
        generation, rank, incarnation: whose.
        is_adopted: another controller may have read and cleared away the first ones.
    """

    def __init__(
        self, store: ObjectStore, generation: int, rank: int, incarnation: int, *, is_adopted: bool = False
    ) -> None:
        self._store = store
        self._address = (generation, rank, incarnation)
        self._next: int | None = None if is_adopted else 0
        self._kept: deque[tuple[str, int]] = deque()

    def read(self) -> Iterator[Mail]:
        """What has come since the last call."""
        if self._next is None:
            self._next = self._first()
        while self._next is not None:
            key = layout.mail(*self._address, self._next)
            try:
                data = self._store.get(key)
            except NotFound:
                return
            self._next += 1
            mail = wire.unpack(data, Mail)
            self._kept.append((key, mail.steps[-1].step if mail.steps else -1))
            yield mail

    @property
    def is_clear(self) -> bool:
        """Whether nothing that was read is still to be removed."""
        return not self._kept

    def clear(self, known: float) -> None:
        """Remove what was read and is in the log, where another controller would find it: steps before `known`."""
        while self._kept and self._kept[0][1] < known:
            self._store.delete(self._kept.popleft()[0])

    def _first(self) -> int | None:
        prefix = layout.mails(*self._address)
        return next((int(info.key.removeprefix(prefix)) for info in self._store.list(prefix)), None)
