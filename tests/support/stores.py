"""An object store in a dict, whose every operation a test can see, and let fail before or after it took effect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from smlt.core.errors import AlreadyExists, Conflict, NotFound
from smlt.core.storage import Buffer, ObjectInfo, ObjectStore

Hook = Callable[[str, str], None]
"""Told the operation ("put", "get", …) and the key; may raise."""


class DictStore(ObjectStore):
    """Keeps the contract of `ObjectStore` within one process.

    Attributes:
        objects: bytes by key, for tests to look at and to damage.
        before, after: hooks around each operation.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.before: Hook = _nothing
        self.after: Hook = _nothing
        self._versions: dict[str, int] = {}
        self._writes = 0
        self._lock = threading.RLock()

    def keys(self, prefix: str = "") -> list[str]:
        return [info.key for info in self.list(prefix)]

    def _do_put(self, key: str, data: Buffer) -> str:
        self.before("put", key)
        version = self._write(key, data)
        self.after("put", key)
        return version

    def _do_put_if_absent(self, key: str, data: Buffer) -> str:
        self.before("put_if_absent", key)
        with self._lock:
            if key in self.objects:
                raise AlreadyExists(key)
            version = self._write(key, data)
        self.after("put_if_absent", key)
        return version

    def _do_compare_and_swap(self, key: str, data: Buffer, version: str) -> str:
        self.before("compare_and_swap", key)
        with self._lock:
            if key not in self.objects:
                raise NotFound(key)
            if str(self._versions[key]) != version:
                raise Conflict(key)
            new = self._write(key, data)
        self.after("compare_and_swap", key)
        return new

    def _do_get(self, key: str, start: int, length: int | None) -> bytes:
        return self._read(key)[0][start : None if length is None else start + length]

    def _do_get_versioned(self, key: str) -> tuple[bytes, str]:
        return self._read(key)

    def _do_list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.before("list", prefix)
        with self._lock:
            found = sorted((key, len(data)) for key, data in self.objects.items() if key.startswith(prefix))
        for key, size in found:
            yield ObjectInfo(key, size, str(self._versions.get(key, 0)))

    def _do_delete(self, key: str) -> None:
        self.before("delete", key)
        with self._lock:
            self.objects.pop(key, None)
        self.after("delete", key)

    def _read(self, key: str) -> tuple[bytes, str]:
        self.before("get", key)
        with self._lock:
            if key not in self.objects:
                raise NotFound(key)
            found = self.objects[key], str(self._versions.get(key, 0))
        self.after("get", key)
        return found

    def _write(self, key: str, data: Buffer) -> str:
        with self._lock:
            self._writes += 1
            self.objects[key], self._versions[key] = bytes(data), self._writes
            return str(self._writes)


def _nothing(operation: str, key: str) -> None:
    del operation, key
