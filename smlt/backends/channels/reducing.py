"""Channel over the reducing store, smlt's parameter server: beside keeping values, it adds contributions up itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy.typing as npt

from smlt.backends.channels import reducing_protocol as protocol
from smlt.backends.channels.reducing_link import Link, Progress, address_of, token_of
from smlt.backends.channels.reducing_protocol import Request
from smlt.backends.channels.reducing_store import StoreStats
from smlt.core import wire
from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import Buffer, Channel, ChannelCapabilities, ChannelKey, ChannelSpec

NAMESPACE = "namespace"
"""Option of the spec: what keeps the keys of runs that share a store apart."""

GONE = "what it held is lost: the run goes on in a new round, or from its checkpoint"

T = TypeVar("T")


class ReducingChannel(Channel):
    """A client connects when it first has something to ask, and once more where it loses its connection.

    A store that was restarted is not the one it knows, and the client of no use any more: a new round opens another.

    Of values that it is to read next, `expect`, it asks for none ahead: what is large goes through `reduce_into`.

    Args:
        spec: its URL is where the store is, `tcp://HOST:PORT` or `unix:///PATH`, or a `file:` in which that stands; for
            its options see `NAMESPACE` here and `token_of`.
        generation, round_number, rank: the address of every key that this client writes.
    """

    capabilities = ChannelCapabilities(ranged=True, reduces=True, max_value_bytes=None, latency_s=100e-6)

    def __init__(self, spec: ChannelSpec, generation: int, round_number: int, rank: int) -> None:
        super().__init__()
        self._spec = spec
        self._address = (generation, round_number, rank)
        self._name = os.urandom(protocol.ID_BYTES)
        self._link: Link | None = None
        self._store = b""
        """The identity of the store, once it is known."""
        self._published: set[ChannelKey] = set()

    def store_stats(self) -> StoreStats:
        """What the store says that this client has asked for; as `stats`, if nothing was lost on the way."""
        self._check_open()
        answer = self._speak(lambda link: link.ask(Request(protocol.STATS)))
        return wire.unpack(answer[1] if answer else b"", StoreStats)

    def _do_put(self, key: ChannelKey, parts: Sequence[Buffer], readers: int | None) -> None:
        self._check_own(key)
        if key in self._published:
            raise ChannelError(f"{key} was written already")
        payload = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        size = sum(part.nbytes for part in payload)
        count = protocol.FOREVER if readers is None else readers
        request = Request(protocol.PUT, self._wire_key(key), count=count, size=size)
        self._speak(lambda link: link.ask(request, payload))
        self._published.add(key)

    def _do_get_into(self, key: ChannelKey, out: memoryview, timeout_s: float, offset: int) -> int:
        size = out.nbytes
        into = out.cast("B") if size else memoryview(bytearray())
        request = Request(protocol.GET, self._wire_key(key), size=size, start=offset, timeout_s=timeout_s)
        return self._found(key, request, into)[0]

    def _do_get(self, key: ChannelKey, timeout_s: float) -> bytes:
        request = Request(protocol.GET, self._wire_key(key), size=protocol.EVERYTHING, timeout_s=timeout_s)
        return self._found(key, request, None)[1]

    def _found(self, key: ChannelKey, request: Request, into: memoryview | None) -> tuple[int, bytes]:
        found = self._speak(lambda link: link.ask(request, into=into))
        if found is None:
            raise PeerLost(
                f"rank {key.rank} did not send {key} within {request.timeout_s:g} s", "is its function alive?"
            )
        return found

    def _do_discard(self, key: ChannelKey) -> None:
        if key in self._published:
            self._speak(lambda link: link.ask(Request(protocol.DISCARD, self._wire_key(key))))
            self._published.discard(key)

    def _do_reduce_into(
        self, key: ChannelKey, header: bytes, buffer: npt.NDArray[Any], ranks: int, patience: Callable[[], None]
    ) -> list[bytes]:
        self._check_own(key)
        if buffer.dtype.str not in protocol.DTYPES:
            raise ChannelError(f"the store cannot add up {buffer.dtype}", "it adds up float32, float64 and int64")
        if buffer.ndim != 1 or not (buffer.flags.c_contiguous and buffer.flags.writeable):
            raise ChannelError("the sum needs a 1-D array without gaps that can be written")
        if len(header) > protocol.MOST_HEADER_BYTES:
            raise ChannelError(
                f"a header of {len(header)} bytes is over the store's limit of {protocol.MOST_HEADER_BYTES}"
            )
        progress = Progress(buffer.data.cast("B") if buffer.size else memoryview(bytearray()))
        where = self._wire_key(key, is_sum=True)

        def contribute(link: Link) -> bytes:
            dtype = protocol.DTYPES.index(buffer.dtype.str)
            size, start = progress.data.nbytes, progress.received
            request = Request(protocol.REDUCE, where, header, ranks, key.rank, dtype, size, start)
            return link.reduce(request, progress, patience)

        headers = self._speak(contribute)
        with suppress(ChannelError):  # the sum is here all the same
            self._speak(lambda link: link.tell(Request(protocol.DONE, where, rank=key.rank)))
        return [headers[place * len(header) :][: len(header)] for place in range(ranks)]

    def _do_close(self) -> None:
        self._hang_up()

    def _check_own(self, key: ChannelKey) -> None:
        if (key.generation, key.round, key.rank) != self._address:
            raise ChannelError(f"{key} is not a key of rank {self._address[2]} in its round")

    def _wire_key(self, key: ChannelKey, *, is_sum: bool = False) -> str:
        name = f"{key.generation}/{key.round}/{key.step}/{key.piece}" if is_sum else str(key)
        name = f"{self._spec.options.get(NAMESPACE, '')}:{name}"
        if len(name.encode()) > protocol.MOST_KEY_BYTES:
            raise ChannelError(f"{name[:40]}… is longer than {protocol.MOST_KEY_BYTES} bytes")
        return name

    def _speak(self, work: Callable[[Link], T]) -> T:
        """Do something over the connection; once more over another one where that is lost."""
        try:
            return self._over_a_link(work)
        except OSError:
            pass
        try:
            return self._over_a_link(work)
        except OSError as error:
            raise ChannelError(
                f"the reducing store at {address_of(self._spec)} is lost: {error.strerror or error}",
                "is its process running, and can this one reach it?",
            ) from error

    def _over_a_link(self, work: Callable[[Link], T]) -> T:
        if self._link is None:
            self._link = self._connected()
        try:
            return work(self._link)
        except OSError:
            self._hang_up()
            raise
        finally:
            if self._link is not None and not self._link.is_idle:  # broken off: what comes next is not an answer
                self._hang_up()

    def _connected(self) -> Link:
        link = Link(address_of(self._spec), token_of(self._spec), self._name)
        if self._store not in (b"", link.store):
            link.close()
            raise ChannelError(f"the reducing store at {address_of(self._spec)} was restarted", GONE)
        self._store = link.store
        return link

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def probe(spec: ChannelSpec) -> StoreStats:
    """Ask the store how it is.

    Raises:
        ChannelError, ConfigError: it cannot be reached, or not with this token.
    """
    with ReducingChannel(spec, 0, 0, 0) as channel:
        return channel.store_stats()
