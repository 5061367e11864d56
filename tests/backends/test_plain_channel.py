"""The suite on the least that a channel can be: no view, no memory of its own, values that a close takes away."""

import functools
from collections.abc import Sequence
from pathlib import Path

import pytest

from smlt.backends.channels.doorbell import wait_until
from smlt.backends.file_store import FileObjectStore
from smlt.core.errors import AlreadyExists, ChannelError, PeerLost
from smlt.core.storage import Buffer, Channel, ChannelCapabilities, ChannelKey, StoreSpec
from smlt.testing.channel import ChannelContract, OpenChannel


class PlainChannel(Channel):
    """Objects of a folder, looked for until they are there."""

    capabilities = ChannelCapabilities(ranged=False, reduces=False, max_value_bytes=None, latency_s=1e-3)

    def __init__(self, folder: Path, generation: int, round_number: int, rank: int) -> None:
        super().__init__()
        self._store = FileObjectStore(StoreSpec("file", folder.as_uri()))
        self._written: set[ChannelKey] = set()

    def _do_put(self, key: ChannelKey, parts: Sequence[Buffer], readers: int | None) -> None:
        try:
            self._store.put_if_absent(_name(key), b"".join(bytes(part) for part in parts))
        except AlreadyExists as error:
            raise ChannelError(f"{key} was written already") from error
        self._written.add(key)

    def _do_get(self, key: ChannelKey, timeout_s: float) -> bytes:
        if not wait_until(lambda: self._store.exists(_name(key)), timeout_s):
            raise PeerLost(f"no {key} within {timeout_s} s")
        return self._store.get(_name(key))

    def _do_get_into(self, key: ChannelKey, out: memoryview, timeout_s: float, offset: int) -> int:
        found = self._do_get(key, timeout_s)[offset : offset + out.nbytes]
        if found:
            out.cast("B")[: len(found)] = found
        return len(found)

    def _do_discard(self, key: ChannelKey) -> None:
        if key in self._written:
            self._store.delete(_name(key))

    def _do_close(self) -> None:
        for key in self._written:
            self._store.delete(_name(key))


def _name(key: ChannelKey) -> str:
    return f"{key.generation}/{key.round}/{key.step}/{key.rank}/{key.piece.encode().hex()}"


class TestPlainChannel(ChannelContract):
    large_value_bytes = 20 * 2**20

    @pytest.fixture
    def open_channel(self, tmp_path: Path) -> OpenChannel:
        return functools.partial(PlainChannel, tmp_path)
