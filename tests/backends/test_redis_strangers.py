"""Who else writes on the server of a Redis channel is found out by the writer and by the reader."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from smlt.backends.channels.redis import RedisChannel
from smlt.backends.channels.redis_writer import MARK_BYTES
from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import Channel, ChannelKey, ChannelSpec
from smlt.testing.channel import PATIENCE_S, key_of
from tests.support.valkey import Valkey, valkey

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def spec(server: Valkey) -> ChannelSpec:
    return ChannelSpec("redis", server.url, {"namespace": f"test-{next(_numbers)}"})


@pytest.fixture
def pair(spec: ChannelSpec) -> Iterator[tuple[Channel, Channel]]:
    """A writer, rank 0, and a reader, rank 1."""
    with RedisChannel(spec, 0, 0, 0) as writer, RedisChannel(spec, 0, 0, 1) as reader:
        yield writer, reader


def name_of(spec: ChannelSpec, key: ChannelKey) -> str:
    return f"{{{spec.options['namespace']}/{key}}}"


@pytest.mark.parametrize(("end", "command"), [("", ("SET", "0")), (":t", ("RPUSH", "n"))])
def test_a_key_that_another_client_wrote(
    server: Valkey, spec: ChannelSpec, pair: tuple[Channel, Channel], end: str, command: tuple[str, str]
) -> None:
    writer, _ = pair
    server.ask(command[0], name_of(spec, key_of(0)) + end, command[1])
    writer.put(key_of(0), [b"1"])
    with pytest.raises(ChannelError, match="written already, by another client"):
        writer.get(key_of(0, 1), timeout_s=PATIENCE_S)


def test_a_strangers_token(server: Valkey, spec: ChannelSpec, pair: tuple[Channel, Channel]) -> None:
    server.ask("SET", f"{name_of(spec, key_of(0))}:t", "something else")
    with pytest.raises(ChannelError, match=r"refused BLMOVE of .*WRONGTYPE") as caught:
        pair[1].get(key_of(0), timeout_s=PATIENCE_S)
    assert "something else uses this key" in caught.value.hint


@pytest.mark.parametrize("token", ["", "1", "n", "something else" * 1000])
def test_a_strangers_token_without_a_value(
    server: Valkey, spec: ChannelSpec, pair: tuple[Channel, Channel], token: str
) -> None:
    server.ask("RPUSH", f"{name_of(spec, key_of(0))}:t", token)
    with pytest.raises(ChannelError, match="vanished"):
        pair[1].get(key_of(0), timeout_s=PATIENCE_S)


def test_a_strangers_value_of_another_type(server: Valkey, spec: ChannelSpec, pair: tuple[Channel, Channel]) -> None:
    server.ask("RPUSH", name_of(spec, key_of(0)), "something else")
    server.ask("RPUSH", f"{name_of(spec, key_of(0))}:t", "n")
    with pytest.raises(ChannelError, match=r"refused GET of .*WRONGTYPE"):
        pair[1].get(key_of(0), timeout_s=PATIENCE_S)


@pytest.mark.parametrize("value", ["", "short", "0" * MARK_BYTES, "0" * 1000])
def test_a_strangers_value_is_said_to_be_one(
    server: Valkey, spec: ChannelSpec, pair: tuple[Channel, Channel], value: str
) -> None:
    server.ask("SET", name_of(spec, key_of(0)), value)
    server.ask("RPUSH", f"{name_of(spec, key_of(0))}:t", "n")
    for _ in range(2):
        with pytest.raises(ChannelError, match="not written there by a rank of this run") as caught:
            pair[1].get(key_of(0), timeout_s=PATIENCE_S)
        assert "something else uses this key" in caught.value.hint


def test_a_strangers_value_is_not_waited_for(server: Valkey, spec: ChannelSpec, pair: tuple[Channel, Channel]) -> None:
    server.ask("SET", name_of(spec, key_of(0)), "without a token")
    with pytest.raises(PeerLost):
        pair[1].get(key_of(0), timeout_s=0.05)


@pytest.mark.parametrize(
    "other", [key_of(0, 1), key_of(0, round_number=1), key_of(0, generation=1), key_of(2), key_of(0, 0, "sum")], ids=str
)
def test_a_value_that_was_moved_from_another_key_is_none(
    server: Valkey, spec: ChannelSpec, pair: tuple[Channel, Channel], other: ChannelKey
) -> None:
    with RedisChannel(spec, other.generation, other.round, other.rank) as writer:
        writer.put(other, [b"of another place"])
        assert writer.get(other, timeout_s=PATIENCE_S) == b"of another place"
    for end in ("", ":t"):
        server.ask("COPY", name_of(spec, other) + end, name_of(spec, key_of(0)) + end)
    with pytest.raises(ChannelError, match="not written there by a rank of this run"):
        pair[1].get(key_of(0), timeout_s=PATIENCE_S)
