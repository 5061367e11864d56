"""What can go wrong between a Redis channel and its server ends in an error that says what, and never in a hang."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smlt.backends.channels import redis_connect, redis_wire
from smlt.backends.channels.redis import RedisChannel
from smlt.core.errors import ChannelError, ConfigError, PeerLost
from smlt.core.storage import Channel, ChannelSpec
from smlt.testing.channel import PATIENCE_S, key_of
from smlt.testing.channel.large import blocks
from smlt.testing.team import Team
from tests.support.redis_fake import FakeRedis
from tests.support.valkey import HOST, Valkey, free_port, valkey

COMMANDS = ("ping", "set", "get", "rpush", "expire", "blmove", "exists", "unlink")
"""All that a channel needs."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path) as server:
        yield server


def spec_of(url: str, **options: object) -> ChannelSpec:
    return ChannelSpec("redis", url, {"namespace": "test", **options})


def name_of(rank: int, step: int = 0) -> str:
    return f"{{test/{key_of(rank, step)}}}"


@pytest.fixture
def pair(server: Valkey) -> Iterator[tuple[Channel, Channel]]:
    """A writer, rank 0, and a reader, rank 1."""
    with RedisChannel(spec_of(server.url), 0, 0, 0) as writer, RedisChannel(spec_of(server.url), 0, 0, 1) as reader:
        yield writer, reader


# Getting in


def test_nobody_listens() -> None:
    with pytest.raises(ChannelError, match=r"cannot reach redis at 127.0.0.1:.*refused") as caught:
        RedisChannel(spec_of(f"redis://{HOST}:{free_port()}"), 0, 0, 0)
    assert "does the server run" in caught.value.hint


def test_the_second_server_is_not_there(server: Valkey) -> None:
    with pytest.raises(ChannelError, match="cannot reach"):
        RedisChannel(spec_of(f"{server.url},redis://{HOST}:{free_port()}"), 0, 0, 0)
    assert int(server.info("clients")["connected_clients"]) <= 2  # one that asks; perhaps one that leaves


def test_no_such_socket(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match=r"cannot reach redis at /.*No such file"):
        RedisChannel(spec_of(f"unix://{tmp_path}/none"), 0, 0, 0)


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [
        ("", "open sesame", None),
        ("worker", "of many", None),
        ("", "", "NOAUTH"),
        ("", "guess", "WRONGPASS"),
        ("worker", "open sesame", "WRONGPASS"),
        ("nobody", "of many", "WRONGPASS"),
    ],
)
def test_passwords(locked: Valkey, monkeypatch: pytest.MonkeyPatch, user: str, password: str, said: str | None) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", password)
    url = locked.url.replace("//", f"//{user}@") if user else locked.url
    spec = spec_of(url, **({"password_from": "REDIS_PASSWORD"} if password else {}))
    if said is None:
        with RedisChannel(spec, 0, 0, 0) as channel:
            channel.put(key_of(0), [b"1"])
            assert channel.get(key_of(0), timeout_s=PATIENCE_S) == b"1"
            channel.discard(key_of(0))
        return
    with pytest.raises(ChannelError, match=said) as caught:
        RedisChannel(spec, 0, 0, 0)
    assert caught.value.hint
    assert not password or password not in str(caught.value)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server with a password, and with a user who may do what a channel does and nothing else."""
    rights = ["~{test/*", *(f"+{command}" for command in COMMANDS)]
    with valkey(tmp_path_factory.mktemp("locked"), "--requirepass", "open sesame") as server:
        server.ask("ACL", "SETUSER", "worker", "on", ">of many", *rights, password="open sesame")
        yield server


def test_a_password_that_nobody_asked_for(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "secret")
    with pytest.raises(ChannelError, match="refused AUTH") as caught:
        RedisChannel(spec_of(server.url, password_from="REDIS_PASSWORD"), 0, 0, 0)
    assert "it has no password" in caught.value.hint


def test_a_password_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="REDIS_PASSWORD is not set"):
        RedisChannel(spec_of("redis://host", password_from="REDIS_PASSWORD"), 0, 0, 0)


@pytest.mark.parametrize(
    ("answer", "said", "hint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Redis: it answered b'HTTP/1.1 400", "host and port"),
        (b"\x15\x03\x03\x00\x02\x02\x16" + bytes(600), "does not speak Redis", "rediss://"),
        (b"-LOADING Valkey is loading the dataset in memory\r\n", "refused PING: LOADING", "try again"),
        (b"-DENIED Redis is running in protected mode\r\n", "refused PING: DENIED", "password"),
        (b"-ERR max number of clients reached\r\n", "max number of clients", "maxclients"),
        (b"-MOVED 7000 10.0.0.1:6379\r\n", "refused PING: MOVED", "cluster mode"),
        (None, "closed the connection", "restart"),
    ],
)
def test_other_answers_to_the_first_word(answer: bytes | None, said: str, hint: str) -> None:
    with FakeRedis({"PING": answer}) as fake, pytest.raises(ChannelError, match=re.escape(said)) as caught:
        RedisChannel(spec_of(fake.url), 0, 0, 0)
    assert hint in caught.value.hint


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connect, "STALL_S", 0.05)
    with FakeRedis({"PING": b""}) as fake, pytest.raises(ChannelError, match="stood still"):
        RedisChannel(spec_of(fake.url), 0, 0, 0)


def test_a_server_that_is_too_old() -> None:
    old = b"-ERR unknown command `BLMOVE`, with args beginning with: `{test/0/0/0/grad/0}:t`\r\n"
    with (
        FakeRedis({"BLMOVE": old, "GET": b"$-1\r\n"}) as fake,
        RedisChannel(spec_of(fake.url), 0, 0, 0) as channel,
        pytest.raises(ChannelError, match="unknown command") as caught,
    ):
        channel.get(key_of(0), timeout_s=PATIENCE_S)
    assert "6.2" in caught.value.hint


# Refusals


def test_a_server_that_is_full(server: Valkey, pair: tuple[Channel, Channel]) -> None:
    writer, _ = pair
    server.ask("CONFIG", "SET", "maxmemory", "1")
    writer.put(key_of(0), [bytes(1000)])
    with pytest.raises(ChannelError, match=r"refused (SET|BLMOVE) of .*OOM") as caught:
        writer.get(key_of(1), timeout_s=PATIENCE_S)
    assert "maxmemory" in caught.value.hint


@pytest.mark.parametrize("together", [True, False])
def test_what_was_refused_is_told_while_something_else_is_waited_for(together: bool) -> None:
    answers = {"SET": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "BLMOVE": b""}
    if together:
        answers |= {"SET": answers["SET"] + b":1\r\n:1\r\n", "RPUSH": b"", "EXPIRE": b""}
    with (
        FakeRedis(answers) as fake,
        RedisChannel(spec_of(fake.url), 0, 0, 0) as channel,
    ):
        channel.put(key_of(0), [b"1"])
        for _ in range(2):
            with pytest.raises(ChannelError, match=r"refused SET of .*OOM"):
                channel.get(key_of(1), timeout_s=PATIENCE_S)
        with pytest.raises(ChannelError, match=r"refused SET of .*OOM"):
            channel.put(key_of(0, 1), [b"1"])


def test_a_value_that_the_server_finds_too_large(server: Valkey, pair: tuple[Channel, Channel]) -> None:
    writer, _ = pair
    server.ask("CONFIG", "SET", "proto-max-bulk-len", "1mb")
    with pytest.raises(ChannelError, match="invalid bulk length"):
        _put_often(writer, bytes(20_000_000))


def test_a_user_who_may_not(locked: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "of many")
    spec = ChannelSpec(
        "redis",
        locked.url.replace("//", "//worker@"),
        {"namespace": "other", "password_from": "REDIS_PASSWORD"},
    )
    with RedisChannel(spec, 0, 0, 0) as channel, pytest.raises(ChannelError, match="NOPERM") as caught:
        channel.get(key_of(0), timeout_s=PATIENCE_S)
    assert "RPUSH" in caught.value.hint


def test_a_value_that_was_evicted(server: Valkey, pair: tuple[Channel, Channel]) -> None:
    writer, reader = pair
    writer.put(key_of(0), [b"1"])
    assert writer.get(key_of(0), timeout_s=PATIENCE_S) == b"1"
    server.ask("DEL", name_of(0))
    with pytest.raises(ChannelError, match="vanished") as caught:
        reader.get(key_of(0), timeout_s=PATIENCE_S)
    assert "noeviction" in caught.value.hint


# Deaths


def test_a_server_that_dies_while_a_value_is_waited_for(server: Valkey, pair: tuple[Channel, Channel]) -> None:
    writer, reader = pair
    with ThreadPoolExecutor(1) as pool:
        value = pool.submit(reader.get, key_of(0), timeout_s=PATIENCE_S)
        while server.info("clients")["blocked_clients"] != "1":
            pass
        server.kill()
        with pytest.raises(ChannelError, match=r"closed the connection|broke") as caught:
            value.result()
    assert not isinstance(caught.value, PeerLost)
    assert "new round" in caught.value.hint
    with pytest.raises(ChannelError, match=r"closed the connection|broke"):
        _put_often(writer, bytes(1_000_000))


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_server_that_was_restarted_is_not_talked_to_again(
    tmp_path: Path, server: Valkey, pair: tuple[Channel, Channel], first: int
) -> None:
    writer, reader = pair
    writer.put(key_of(0), [b"1"])
    assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"1"
    reader.expect([key_of(0, 1)])
    port = server.port
    server.kill()
    (tmp_path / "again").mkdir()
    with valkey(tmp_path / "again", port=port) as again:
        for step in (first, 0, 1, 2):
            for timeout_s in (0, 0.01):
                with pytest.raises(ChannelError, match=r"closed the connection|broke"):
                    reader.get(key_of(0, step), timeout_s=timeout_s)
        with RedisChannel(spec_of(again.url), 0, 1, 1) as fresh, pytest.raises(PeerLost):
            fresh.get(key_of(0), timeout_s=0)


def test_a_server_that_stands_still_is_waited_for(server: Valkey, pair: tuple[Channel, Channel]) -> None:
    writer, reader = pair
    reader.expect([key_of(0), key_of(0, 1)])
    os.kill(server.pid, signal.SIGSTOP)
    try:
        writer.put(key_of(0), [b"1"])
        writer.put(key_of(0, 1), [b"2"])
        for _ in range(3):
            with pytest.raises(PeerLost):
                reader.get(key_of(0), timeout_s=0.01)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"1"
    assert reader.get(key_of(0, 1), timeout_s=PATIENCE_S) == b"2"


def test_a_writer_that_is_killed_in_the_middle_of_a_value(server: Valkey, pair: tuple[Channel, Channel]) -> None:
    _, reader = pair
    reader.expect([key_of(2), key_of(0)])
    with Team(1) as team:
        team.start(_write_half_and_die, spec_of(server.url), member=0)
        with pytest.raises(EOFError):
            team.result(0)
    for _ in range(2):
        with pytest.raises(PeerLost):
            reader.get(key_of(2), timeout_s=0.05)
    assert server.ask("EXISTS", name_of(2), f"{name_of(2)}:t") == 0
    pair[0].put(key_of(0), [b"alive"])
    assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"alive"


def _put_often(writer: Channel, value: bytes) -> None:
    for step in range(100):
        writer.put(key_of(0, step), [value])


def _write_half_and_die(spec: ChannelSpec) -> None:
    parts, send_some, sent = blocks(300 * 2**20), redis_wire.Wire._send_some, itertools.count()

    def send_half(wire: redis_wire.Wire, left: list[memoryview]) -> None:
        if next(sent) == len(parts) // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        send_some(wire, left)

    channel = RedisChannel(spec, 0, 0, 2)
    redis_wire.MOST_PARTS = 1
    redis_wire.Wire._send_some = send_half  # type: ignore[method-assign]
    channel.put(key_of(2), parts)
