"""Whatever a store answers, and wherever it stops: a value or a sum is what it must be, or there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.backends.channels import reducing_link
from smlt.backends.channels import reducing_protocol as protocol
from smlt.backends.channels.reducing import ReducingChannel
from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import key_of
from tests.support.reducing_fake import HANDSHAKE_BYTES, FakeStore

SHORT_S = 0.02
HEADERS = b"header 0header 1"


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    """Nobody is waited for long."""
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in (("CONNECT_S", SHORT_S), ("ANSWER_S", SHORT_S), ("WAIT_SLICE_S", SHORT_S / 4)):
            patch.setattr(reducing_link, name, seconds)
        yield


def give_up() -> None:
    raise PeerLost("a rank that does not come")


def get(channel: ReducingChannel, size: int) -> bytes:
    return channel.get(key_of(1), timeout_s=SHORT_S)


def get_into(channel: ReducingChannel, size: int) -> bytes:
    out = bytearray(size + 10)
    return bytes(out[: channel.get_into(key_of(1), memoryview(out), timeout_s=SHORT_S)])


def reduce_into(channel: ReducingChannel, size: int) -> bytes:
    own = np.zeros(size // 4, np.float32)
    headers = channel.reduce_into(key_of(0), HEADERS[:8], own, ranks=2, patience=give_up)
    assert headers == [HEADERS[:8], HEADERS[8:]]
    return own.tobytes()


def put(channel: ReducingChannel, size: int) -> bytes:
    channel.put(key_of(0), [bytes(size)])
    return b""


ASKS: dict[str, tuple[Callable[[ReducingChannel, int], bytes], bytes]] = {
    "get": (get, b""),
    "get_into": (get_into, b""),
    "reduce_into": (reduce_into, HEADERS),
}


@given(
    what=st.sampled_from(list(ASKS)),
    elements=st.integers(0, 100) | st.integers(0, 40_000),
    cut=st.floats(0, 1) | st.integers(0, HANDSHAKE_BYTES + protocol.REPLY.size + 20),
    hangs_up=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_an_answer_that_is_cut_anywhere_is_no_value(what: str, elements: int, cut: float, hangs_up: bool) -> None:
    """Cut off on every connection, or not going on; in the handshake, in the frame, in what follows it."""
    ask, headers = ASKS[what]
    value = np.arange(elements, dtype=np.float32).tobytes()
    answer = protocol.REPLY.pack(protocol.OK, len(headers), len(value)) + headers + value
    total = HANDSHAKE_BYTES + len(answer)
    said = min(total, int(cut * total) if isinstance(cut, float) else cut)
    with (
        FakeStore(answer, said, hangs_up=hangs_up) as fake,
        ReducingChannel(ChannelSpec("reducing", fake.url), 0, 0, 0) as channel,
    ):
        try:
            found = ask(channel, len(value))
        except ChannelError:
            return
        assert found == value
        assert said == total


@pytest.mark.parametrize("said", [0, 5, 40, 71, 72, 80, HANDSHAKE_BYTES + protocol.REPLY.size - 1])
@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_put_that_is_not_acknowledged_is_an_error(said: int, hangs_up: bool) -> None:
    answer = protocol.REPLY.pack(protocol.OK, 0, 0)
    with (
        FakeStore(answer, said, hangs_up=hangs_up) as fake,
        ReducingChannel(ChannelSpec("reducing", fake.url), 0, 0, 0) as channel,
        pytest.raises(ChannelError, match=r"is lost|does not answer"),
    ):
        channel.put(key_of(0), [b"1"])


FRAMES = st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1) | st.just(16), st.integers(0, 2**64 - 1) | st.just(8))
NONSENSE = st.binary(max_size=100) | st.builds(
    lambda frame, rest: protocol.REPLY.pack(*frame) + rest, FRAMES, st.binary(max_size=40)
)


@given(NONSENSE, st.sampled_from([put, get, get_into, reduce_into]))
@settings(max_examples=150, deadline=None)
def test_nonsense_is_no_answer(said: bytes, ask: Callable[[ReducingChannel, int], bytes]) -> None:
    with (
        FakeStore(said) as fake,
        ReducingChannel(ChannelSpec("reducing", fake.url), 0, 0, 0) as channel,
    ):
        try:
            found = ask(channel, 8)
        except ChannelError:
            return
        status, _, size = protocol.REPLY.unpack_from(said)
        assert (status, len(found)) == (protocol.OK, size)
