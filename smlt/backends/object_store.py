"""ObjectStore over obstore. A further store is one more constructor; what stores differ in is known to obstore.

A folder is no store of obstore's here: see `smlt.backends.file_store` for why.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from smlt.backends.file_store import FileObjectStore
from smlt.core.errors import AccessDenied, AlreadyExists, ConfigError, Conflict, NotFound, StorageError
from smlt.core.storage import Buffer, ObjectInfo, ObjectStore, StoreSpec

if TYPE_CHECKING:
    from obstore.store import MemoryStore
    from obstore.store import ObjectStore as Client

__all__ = ["FileObjectStore", "MemoryObjectStore", "ObstoreObjectStore"]

LIST_CHUNK = 1000
"""Objects a request of a listing; what S3, GCS and Azure return at most is 1,000 to 5,000."""


RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=8)}
"""Of one request; who can wait for longer asks again, and says so."""

CONNECT_S, ANSWER_S = 5, 60
"""Seconds for a connection, and for an answer with all its bytes."""


def client_options(endpoint: str | None) -> Any:
    """Of a provider's store: how long it is waited for, and whether an endpoint of one's own may do without TLS."""
    times: dict[str, Any] = {"connect_timeout": timedelta(seconds=CONNECT_S), "timeout": timedelta(seconds=ANSWER_S)}
    return times | ({"allow_http": endpoint.startswith("http://")} if endpoint else {})


class ObstoreObjectStore(ObjectStore):
    """Objects in a store that obstore speaks to; its runtime starts threads on first use, so after any fork.

    Args:
        client: obstore's client, whose root is the root of the keys.
        name: what to call the store in an error.

    Attributes:
        name: see there.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client, self.name = client, name

    def _do_put(self, key: str, data: Buffer) -> str:
        return self._write(key, data, None)

    def _do_put_if_absent(self, key: str, data: Buffer) -> str:
        return self._write(key, data, "create")

    def _do_compare_and_swap(self, key: str, data: Buffer, version: str) -> str:
        try:
            return self._write(key, data, _condition(version))
        except StorageError:  # of a missing object stores say now one thing, now another
            if not self.exists(key):
                raise NotFound(f"{self.name} has no object {key}") from None
            raise

    def _do_get(self, key: str, start: int, length: int | None) -> bytes:
        return bytes(self._do_view(key, start, length))

    def _do_view(self, key: str, start: int, length: int | None) -> memoryview:
        if length == 0:
            self._size(key)  # raises if there is no such object
            return memoryview(b"")
        try:
            return self._fetch(key, start, length)
        except NotFound:
            raise
        except StorageError:  # stores refuse a range that holds no byte, each with an error of its own
            if start < self._size(key):
                raise
            return memoryview(b"")

    def _fetch(self, key: str, start: int, length: int | None) -> memoryview:
        import obstore

        options: Any = {"range": {"offset": start} if length is None else (start, start + length)}
        with self._translated(key):
            whole = start == 0 and length is None
            return memoryview(obstore.get(self._client, key, options=None if whole else options).bytes())

    def _size(self, key: str) -> int:
        import obstore

        with self._translated(key):
            return int(obstore.head(self._client, key)["size"])

    def _do_get_versioned(self, key: str) -> tuple[bytes, str]:
        import obstore

        with self._translated(key):
            found = obstore.get(self._client, key)
            return found.bytes().to_bytes(), self._tag(found.meta)

    def _do_list(self, prefix: str) -> Iterator[ObjectInfo]:
        import obstore

        # obstore's prefix is a folder; ours is any string, so the listing starts just before it and ends behind it.
        folder = prefix.rpartition("/")[0]
        with self._translated(prefix):
            found = obstore.list(self._client, folder or None, offset=prefix[:-1] or None, chunk_size=LIST_CHUNK)
            for chunk in found:
                for meta in chunk:
                    if meta["path"].startswith(prefix):
                        yield ObjectInfo(meta["path"], meta["size"], self._tag(meta))
                    elif meta["path"] > prefix:
                        return

    def _do_delete(self, key: str) -> None:
        import obstore

        try:
            with self._translated(key):
                obstore.delete(self._client, key)
        except NotFound:
            pass  # only some stores tell

    def _write(self, key: str, data: Buffer, mode: Any) -> str:
        import obstore

        with self._translated(key):
            # One request a write whatever its size: splitting multiplies requests, which are what is billed.
            return self._tag(obstore.put(self._client, key, self._body(data), mode=mode, use_multipart=False))

    def _tag(self, meta: Any) -> str:
        """What a store says of an object's version: GCS conditions on the one, S3 and Azure on the other."""
        return f"{meta['version'] or ''}:{meta['e_tag'] or ''}"

    def _body(self, data: Buffer) -> Buffer:
        return data if isinstance(data, bytes) or not memoryview(data).nbytes else memoryview(data).cast("B")

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except FileNotFoundError as error:
            raise NotFound(f"{self.name} has no object {key}") from error
        except exceptions.AlreadyExistsError as error:
            raise AlreadyExists(f"{self.name} has an object {key} already") from error
        except (exceptions.PreconditionError, exceptions.NotModifiedError) as error:
            raise Conflict(f"{key} in {self.name} changed since it was read") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            hint = "do the credentials in use allow it?"
            raise AccessDenied(f"{self.name} refuses access to {key}: {_first_line(error)}", hint) from error
        except (exceptions.BaseError, OSError) as error:
            raise StorageError(f"{self.name}: {key}: {_first_line(error)}", "is the store reachable?") from error
        except ValueError as error:
            raise ConfigError(f"not a key for {self.name}: {key!r}: {_first_line(error)}") from error


class MemoryObjectStore(ObstoreObjectStore):
    """Objects in the memory of this process; every client of one URL sees the same ones."""

    def __init__(self, spec: StoreSpec) -> None:
        super().__init__(_memory(spec.url), spec.url)

    def _body(self, data: Buffer) -> Buffer:
        return bytes(data)  # what is stored is the caller's own memory otherwise, which may change


_memories: dict[str, MemoryStore] = {}
_memories_lock = threading.Lock()


def _memory(url: str) -> MemoryStore:
    from obstore.store import MemoryStore

    with _memories_lock:
        return _memories.setdefault(url, MemoryStore())


def _condition(tag: str) -> dict[str, str]:
    version, _, e_tag = tag.partition(":")
    return {name: value for name, value in (("version", version), ("e_tag", e_tag)) if value}


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
