"""Whatever a server answers, and wherever it stops: what is read is what was written, or nothing is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.backends.channels.redis import RedisChannel
from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import Channel, ChannelSpec
from smlt.testing.channel import PATIENCE_S, key_of
from tests.support.redis_fake import TOKEN, FakeRedis, LastWords, value_of

NAME = f"{{test/{key_of(0)}}}".encode()
SHORT_S = 0.02


def spec_of(url: str) -> ChannelSpec:
    return ChannelSpec("redis", url, {"namespace": "test"})


def make_impatient(channel: RedisChannel) -> None:
    """Let it give up soon on a server that stands still; not while it connects, which may take longer."""
    for server in channel._servers:
        for wire in (server.reader._wire, server.writer._wire):
            wire.stall_s = SHORT_S
            wire._prepare()


def get(channel: Channel, timeout_s: float) -> bytes:
    return channel.get(key_of(0), timeout_s=timeout_s)


def get_into(channel: Channel, timeout_s: float) -> bytes:
    out = bytearray(200_000)
    return bytes(out[: channel.get_into(key_of(0), memoryview(out), timeout_s=timeout_s)])


def get_announced(channel: Channel, timeout_s: float) -> bytes:
    channel.expect([key_of(0)])
    return get(channel, timeout_s)


@given(
    size=st.integers(0, 600) | st.integers(0, 150_000),
    cut=st.floats(0, 1) | st.integers(0, 60),
    hangs_up=st.booleans(),
    is_looked_for=st.booleans(),
    read=st.sampled_from([get, get_into, get_announced]),
)
@settings(max_examples=150, deadline=None)
def test_a_reply_that_is_cut_anywhere_is_no_value(
    size: int, cut: float, hangs_up: bool, is_looked_for: bool, read: Callable[[Channel, float], bytes]
) -> None:
    """Cut off, or not going on; of a value that is waited for, or is only looked for."""
    value = bytes(number % 251 for number in range(size))
    whole = value_of(NAME, value) if is_looked_for and read is not get_announced else TOKEN + value_of(NAME, value)
    kept = whole[: int(cut * len(whole)) if isinstance(cut, float) else cut]
    answer = LastWords(kept) if hangs_up else kept
    answers = {"BLMOVE": b"", "GET": answer} if whole[:2] != TOKEN[:2] else {"BLMOVE": answer, "GET": b""}
    with FakeRedis(answers) as fake, RedisChannel(spec_of(fake.url), 0, 0, 0) as channel:
        make_impatient(channel)
        try:
            found = read(channel, 0 if is_looked_for else SHORT_S)
        except ChannelError:
            return
        assert found == value
        assert kept.startswith(whole.removesuffix(b"\r\n"))


KEPT = [1, 5, 8, 12, 40, 5000]


@pytest.mark.parametrize("kept", KEPT)
def test_a_reply_that_is_cut_off_is_said_to_be(kept: int) -> None:
    answer = LastWords((TOKEN + value_of(NAME, bytes(100_000)))[:kept])
    with FakeRedis({"BLMOVE": answer}) as fake, RedisChannel(spec_of(fake.url), 0, 0, 0) as channel:
        for _ in range(2):  # and nothing is tried again behind one's back
            with pytest.raises(ChannelError, match=r"closed the connection|broke") as caught:
                channel.get(key_of(0), timeout_s=PATIENCE_S)
            assert not isinstance(caught.value, PeerLost)


@pytest.mark.parametrize("kept", KEPT)
def test_a_reply_that_does_not_go_on_is_said_not_to(kept: int) -> None:
    answer = (TOKEN + value_of(NAME, bytes(100_000)))[:kept]
    with FakeRedis({"BLMOVE": answer, "GET": b""}) as fake, RedisChannel(spec_of(fake.url), 0, 0, 0) as channel:
        make_impatient(channel)
        with pytest.raises(ChannelError, match="stood still"):
            channel.get_into(key_of(0), memoryview(bytearray(100_000)), timeout_s=PATIENCE_S)


WORDS = [b"$", b"*", b":", b"+", b"-", b"_", b"0", b"1", b"16", b"n", b"9" * 30, b"*1\r\n" * 900, b"\r\n"]
ANYTHING = st.lists(st.sampled_from(WORDS) | st.binary(max_size=20)).map(b"".join)


@given(ANYTHING, st.sampled_from([get, get_into, get_announced]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_reader_takes_no_nonsense(said: bytes, read: Callable[[Channel, float], bytes], is_looked_for: bool) -> None:
    answers = {"BLMOVE": LastWords(said), "GET": LastWords(said), "EXISTS": b":1\r\n"}
    with FakeRedis(answers) as fake, RedisChannel(spec_of(fake.url), 0, 0, 0) as channel:
        for _ in range(2):
            with pytest.raises(ChannelError):
                read(channel, 0 if is_looked_for else SHORT_S)


@given(ANYTHING, st.sampled_from(["SET", "RPUSH", "EXPIRE", "UNLINK"]))
@settings(max_examples=100, deadline=None)
def test_a_writer_takes_no_nonsense(said: bytes, command: str) -> None:
    with FakeRedis({command: LastWords(said)}) as fake, RedisChannel(spec_of(fake.url), 0, 0, 0) as channel:
        for _ in range(2):
            with suppress(ChannelError):
                channel.put(key_of(0), [b"1"])
                channel.discard(key_of(0))
            with pytest.raises(ChannelError):
                channel.get(key_of(1), timeout_s=SHORT_S)


@pytest.mark.parametrize("reply", [b"+OK\r\n", b"$x\r\n", b"hello\r\n", b"$-5\r\n", b"$9999999999999\r\n", bytes(600)])
def test_a_reply_that_is_none(reply: bytes) -> None:
    with (
        FakeRedis({"BLMOVE": reply, "GET": b"$-1\r\n"}) as fake,
        RedisChannel(spec_of(fake.url), 0, 0, 0) as channel,
        pytest.raises(ChannelError, match="does not speak Redis"),
    ):
        channel.get(key_of(0), timeout_s=PATIENCE_S)


def test_what_comes_behind_a_failure_is_no_reply() -> None:
    behind = b"$1\r\nn\r\n$1\r\nx\r\n"
    with (
        FakeRedis({"BLMOVE": b"-WRONGTYPE\r\n" + behind, "GET": b""}) as fake,
        RedisChannel(spec_of(fake.url), 0, 0, 0) as channel,
    ):
        for timeout_s in (PATIENCE_S, PATIENCE_S, 0):
            with pytest.raises(ChannelError, match="WRONGTYPE"):
                channel.get(key_of(0), timeout_s=timeout_s)


def test_a_wait_that_the_server_ended() -> None:
    with (
        FakeRedis({"BLMOVE": b"$-1\r\n", "GET": b"$-1\r\n"}) as fake,
        RedisChannel(spec_of(fake.url), 0, 0, 0) as channel,
        pytest.raises(ChannelError, match="stopped waiting"),
    ):
        channel.get(key_of(0), timeout_s=PATIENCE_S)
