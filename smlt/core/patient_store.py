"""An object store that outlasts the outages of another: what fails in passing is tried again, and an answer that got
lost is not mistaken for a refusal.

What retries cannot mend (a missing object, a lost race, damaged bytes) is told at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from smlt.core.errors import AccessDenied, AlreadyExists, Conflict, CorruptObject, NotFound, StorageError, StoreFull
from smlt.core.storage import Buffer, ObjectInfo, ObjectStore

PATIENCE_S = 120.0
"""A store may be out of reach for so long."""

DENIED_S = 10.0
"""The same where it denies access: seldom mended by waiting, but credentials that are being renewed are."""

FULL_S = 30.0
"""The same where it has no room left: somebody may be clearing up."""

BACK_OFF_S = 0.05
"""Before the second try; doubled each time, and a random part of it waited, so that many clients do not come at once
(M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: equal jitter)."""

LONGEST_S = 5.0
"""Between two tries, at most."""

ANSWERS = (NotFound, AlreadyExists, Conflict, CorruptObject)
"""Errors that are the store's answer."""

T = TypeVar("T")


class PatientStore(ObjectStore):
    """Wraps a store; keeps the contract of `ObjectStore` where that one does, and is closed with it.

    `put_if_absent` and `compare_and_swap` that failed may have taken effect. Tried again, they are refused by what they
    wrote themselves; so where the object is found to hold these very bytes, that was success. Bytes that two clients
    could both want to write there must tell the two apart.

    Args:
        store: the other one.
        patience_s: after so long without success the error is raised.
        longest_s: between two tries, at most.
        clock, sleep: monotonic seconds.
        random: uniform in [0, 1), for jitter.
        is_over: whether nobody waits any more; then the next error is raised.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        patience_s: float = PATIENCE_S,
        longest_s: float = LONGEST_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random.random,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.concurrency = store.concurrency
        self._store, self._clock, self._sleep, self._random = store, clock, sleep, random
        self._patience_s, self._longest_s, self._is_over = patience_s, longest_s, is_over

    def persist(self, request: Callable[[], T]) -> T:
        """Do something else with the store, which may be done twice, as patiently."""
        trial = _Trial(self)
        while True:
            try:
                return request()
            except StorageError as error:
                trial.failed(error)

    def _do_put(self, key: str, data: Buffer) -> str:
        return self.persist(lambda: self._store.put(key, data))

    def _do_put_parts(self, key: str, parts: Sequence[Buffer]) -> str:
        return self.persist(lambda: self._store.put(key, *parts))

    def _do_put_if_absent(self, key: str, data: Buffer) -> str:
        return self._once(key, data, lambda: self._store.put_if_absent(key, data))

    def _do_compare_and_swap(self, key: str, data: Buffer, version: str) -> str:
        return self._once(key, data, lambda: self._store.compare_and_swap(key, data, version))

    def _do_get(self, key: str, start: int, length: int | None) -> bytes:
        return self.persist(lambda: self._store.get(key, start=start, length=length))

    def _do_view(self, key: str, start: int, length: int | None) -> memoryview:
        return self.persist(lambda: self._store.view(key, start=start, length=length))

    def _do_get_versioned(self, key: str) -> tuple[bytes, str]:
        return self.persist(lambda: self._store.get_versioned(key))

    def _do_list(self, prefix: str) -> Iterator[ObjectInfo]:
        """One listing; where it breaks off, another one, from behind the last key that came."""
        last = ""
        listing = iter(self._store.list(prefix))
        while True:
            trial = _Trial(self)
            while True:
                try:
                    info = next((info for info in listing if info.key > last), None)
                    break
                except StorageError as error:
                    trial.failed(error)
                    listing = iter(self._store.list(prefix))
            if info is None:
                return
            last = info.key
            yield info

    def _do_delete(self, key: str) -> None:
        self.persist(lambda: self._store.delete(key))

    def _do_delete_keeping_room(self, key: str) -> None:
        self.persist(lambda: self._store.delete(key, keep_room=True))

    def _do_close(self) -> None:
        self._store.close()

    def _once(self, key: str, data: Buffer, request: Callable[[], str]) -> str:
        """A write that must not happen twice."""
        trial = _Trial(self)
        while True:
            try:
                return request()
            except (AlreadyExists, Conflict):
                if not trial.failures:
                    raise
                found, version = self._do_get_versioned(key)
                if found != bytes(data):
                    raise
                return version
            except StorageError as error:
                trial.failed(error)


class _Trial:
    """One request, tried until it succeeds or patience ends."""

    def __init__(self, owner: PatientStore) -> None:
        self._owner, self._began, self.failures = owner, owner._clock(), 0

    def failed(self, error: StorageError) -> None:
        """Wait for the next try; raises the error where there shall be none."""
        owner = self._owner
        if isinstance(error, ANSWERS) or owner._is_over():
            raise error
        patience_s = owner._patience_s
        if isinstance(error, (AccessDenied, StoreFull)):
            patience_s = min(patience_s, DENIED_S if isinstance(error, AccessDenied) else FULL_S)
        wait_s = min(owner._longest_s, BACK_OFF_S * 2**self.failures) * (1 + owner._random()) / 2
        if owner._clock() + wait_s - self._began > patience_s:
            raise error
        self.failures += 1
        owner._sleep(wait_s)
