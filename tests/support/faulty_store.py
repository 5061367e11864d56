"""A store whose requests fail at random, from a seed: as object stores do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import TypeVar

from smlt.core.errors import AccessDenied, StorageError
from smlt.core.storage import Buffer, ObjectInfo, ObjectStore

T = TypeVar("T")

KINDS = ("503", "timeout before", "timeout after", "denied", "broken off", "cut")
"""What can happen to a request: refused for now; no answer, without and with effect; refused; the answer breaks off,
and the client notices; or the client does not notice, and has a part of the object for the whole."""


class FaultyStore(ObjectStore):
    """Wraps another store.

    Args:
        store: the other one.
        random: decides.
        rate: of requests that fail.
        kinds: that may happen.

    Attributes:
        failures: how often what happened.
        breaks_off_after: objects after which the next listing fails; None for never.
    """

    def __init__(self, store: ObjectStore, random: Random, rate: float, kinds: tuple[str, ...] = KINDS[:-1]) -> None:
        self._store, self._random, self._rate, self._kinds = store, random, rate, kinds
        self._lock = threading.Lock()
        self.failures: dict[str, int] = dict.fromkeys(kinds, 0)
        self.breaks_off_after: int | None = None

    def _do_put(self, key: str, data: Buffer) -> str:
        return self._request(lambda: self._store.put(key, data))

    def _do_put_if_absent(self, key: str, data: Buffer) -> str:
        return self._request(lambda: self._store.put_if_absent(key, data))

    def _do_compare_and_swap(self, key: str, data: Buffer, version: str) -> str:
        return self._request(lambda: self._store.compare_and_swap(key, data, version))

    def _do_get(self, key: str, start: int, length: int | None) -> bytes:
        return self._request(
            lambda: self._store.get(key, start=start, length=length), lambda data: data[: len(data) // 2]
        )

    def _do_get_versioned(self, key: str) -> tuple[bytes, str]:
        return self._request(lambda: self._store.get_versioned(key))

    def _do_list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = self._request(lambda: list(self._store.list(prefix)))
        for number, info in enumerate(found):
            if number == self.breaks_off_after:
                self.breaks_off_after = None
                raise StorageError("503")
            yield info

    def _do_delete(self, key: str) -> None:
        self._request(lambda: self._store.delete(key))

    def note(self, kind: str) -> None:
        """A request is about to fail."""

    def _request(self, request: Callable[[], T], cut: Callable[[T], T] | None = None) -> T:
        with self._lock:
            fails = self._random.random() < self._rate
            kind = self._random.choice(self._kinds) if fails else ""
            if kind == "cut" and cut is None:
                kind = ""
            if kind:
                self.failures[kind] += 1
                self.note(kind)
        match kind:
            case "":
                return request()
            case "cut":
                return cut(request())  # type: ignore[misc]
            case "timeout after" | "broken off":
                request()
            case "denied":
                raise AccessDenied("403 Forbidden")
        raise StorageError(kind)
