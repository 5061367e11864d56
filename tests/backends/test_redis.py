"""The Redis channel keeps the contract on a real server: over TCP, with TLS, and on two servers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smlt.backends.channels import redis_connect, redis_reader
from smlt.backends.channels.redis import RedisChannel, sweep
from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import ChannelKey, ChannelSpec
from smlt.testing.channel import (
    MEMBERS,
    PATIENCE_S,
    ChannelContract,
    Connect,
    OpenChannel,
    Scribble,
    StrangerContract,
    key_of,
)
from smlt.testing.team import Team
from tests.support.redis_tls import self_signed, tls_relay
from tests.support.valkey import Valkey, valkey

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def processes() -> Iterator[Team]:
    """One team for all classes: its processes take longer to start than most tests to run."""
    with Team(MEMBERS) as team:
        yield team


@pytest.fixture
def options() -> dict[str, object]:
    """Of a channel that is empty when a test begins."""
    return {"namespace": f"test-{next(_numbers)}", "ttl_s": 60}


class RedisContract(ChannelContract):
    large_value_bytes = 5 * 2**20
    steps = 10

    @pytest.fixture(scope="class")
    @classmethod
    def team(cls, processes: Team) -> Team:
        return processes

    @pytest.fixture
    def spec(self, server: Valkey, options: dict[str, object]) -> ChannelSpec:
        return ChannelSpec("redis", server.url, options)

    @pytest.fixture
    def open_channel(self, spec: ChannelSpec) -> OpenChannel:
        return functools.partial(RedisChannel, spec)

    @pytest.fixture
    def open_elsewhere(self, spec: ChannelSpec) -> OpenChannel:
        options = {**spec.options, "namespace": f"{spec.options['namespace']}-too"}
        return functools.partial(RedisChannel, replace(spec, options=options))

    def test_announced_values_come_in_any_order_of_writing(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        keys = [key_of(0, step) for step in range(50)]
        reader.expect(keys)
        for key in reversed(keys):
            writer.put(key, [b"%d" % key.step], readers=1)
        assert [reader.get(key, timeout_s=PATIENCE_S) for key in keys] == [b"%d" % key.step for key in keys]

    def test_a_wait_that_was_given_up_is_taken_up_again(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        reader.expect([key_of(0, step) for step in range(3)])
        for timeout_s in (0, 0.01):
            with pytest.raises(PeerLost):
                reader.get(key_of(0), timeout_s=timeout_s)
        for step in (2, 1, 0):
            writer.put(key_of(0, step), [b"%d" % step * 1000])
        for step in range(3):
            assert reader.get(key_of(0, step), timeout_s=PATIENCE_S) == b"%d" % step * 1000

    def test_another_value_is_wanted_first(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        reader.expect([key_of(0, step) for step in range(20)])
        with pytest.raises(PeerLost):
            reader.get(key_of(0), timeout_s=0.01)
        with pytest.raises(PeerLost):
            reader.get(key_of(0, 98), timeout_s=0.01)
        writer.put(key_of(0, 99), [b"aside"])
        assert reader.get(key_of(0, 99), timeout_s=0) == b"aside"
        for step in range(20):
            writer.put(key_of(0, step), [b"%d" % step])
        assert reader.get(key_of(0, 7), timeout_s=PATIENCE_S) == b"7"
        for step in (*range(7), *range(8, 20)):
            assert reader.get(key_of(0, step), timeout_s=PATIENCE_S) == b"%d" % step

    def test_an_announced_value_that_is_there_needs_no_time(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0), [b"1"])
        assert connect(2).get(key_of(0), timeout_s=PATIENCE_S) == b"1"
        reader.expect([key_of(0), key_of(0, 1)])
        assert reader.get(key_of(0), timeout_s=0) == b"1"
        with pytest.raises(PeerLost):
            reader.get(key_of(0, 1), timeout_s=0)

    def test_announced_values_larger_and_smaller_than_asked_for(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        reader.expect([key_of(0, step) for step in range(4)])
        for step in range(4):
            writer.put(key_of(0, step), [bytes([step]) * 200_000])
        for step, (room, offset) in enumerate([(1000, 5), (200_000, 199_999), (300_000, 0), (10, 400_000)]):
            out = memoryview(bytearray(room))
            copied = reader.get_into(key_of(0, step), out, timeout_s=PATIENCE_S, offset=offset)
            assert copied == max(0, min(room, 200_000 - offset))
            assert out[:copied] == bytes([step]) * copied


class TestTcp(RedisContract, StrangerContract):
    large_value_bytes = 300 * 2**20

    @pytest.fixture
    def scribble(self, server: Valkey, options: dict[str, object]) -> Scribble:
        def scribble(key: ChannelKey, data: bytes) -> None:
            name = f"{{{options['namespace']}/{key}}}"
            server.ask("SET", name, data)
            server.ask("RPUSH", f"{name}:t", "n")

        return scribble

    def test_what_one_reader_reads_is_gone(self, connect: Connect, server: Valkey, options: dict[str, object]) -> None:
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0), [b"1"], readers=1)
        writer.put(key_of(0, 1), [b"2"], readers=2)
        assert [reader.get(key_of(0, step), timeout_s=PATIENCE_S) for step in range(2)] == [b"1", b"2"]
        with pytest.raises(PeerLost):
            reader.get(key_of(0, 2), timeout_s=0.01)
        names = [f"{{{options['namespace']}/{key_of(0, 1)}}}" + end for end in ("", ":t")]
        assert server.ask("EXISTS", *names) == 2
        assert server.ask("EXISTS", *(name.replace(str(key_of(0, 1)), str(key_of(0))) for name in names)) == 0

    def test_it_counts_what_the_server_counts(self, connect: Connect, server: Valkey) -> None:
        writer, reader = connect(0), connect(1)
        server.ask("CONFIG", "RESETSTAT")
        sizes = [100_000 + step for step in range(30)]
        reader.expect([key_of(0, step) for step in range(20)])
        with pytest.raises(PeerLost):
            reader.get(key_of(0), timeout_s=0.01)
        for step, size in enumerate(sizes):
            writer.put(key_of(0, step), [bytes(size)], readers=1 if step % 2 else None)
        for step, size in enumerate(sizes):
            assert len(reader.get(key_of(0, step), timeout_s=PATIENCE_S)) == size
        for step in range(len(sizes)):
            writer.discard(key_of(0, step))
        calls, traffic = server.calls(), server.info("stats")
        assert (writer.stats().requests, reader.stats().requests) == ({"put": 30}, {"get": 30})
        assert (calls["set"], calls["get"], calls["blmove"]) == (30, 30, 30)
        assert writer.stats().bytes_up == reader.stats().bytes_down == sum(sizes)
        overhead_up = int(traffic["total_net_input_bytes"]) - writer.stats().bytes_up
        overhead_down = int(traffic["total_net_output_bytes"]) - reader.stats().bytes_down
        assert 0 < overhead_up < 30 * 600
        assert 0 < overhead_down < 30 * 100

    def test_values_and_tokens_do_not_live_for_ever(self, connect: Connect, server: Valkey) -> None:
        writer = connect(0)
        writer.put(key_of(0), [b"1"])
        assert writer.get(key_of(0), timeout_s=PATIENCE_S) == b"1"
        found = server.ask("KEYS", f"{{test-{next(_numbers) - 1}/*")
        assert isinstance(found, list)
        lives = [server.ask("TTL", name.decode()) for name in found if isinstance(name, bytes)]
        assert len(lives) == 2
        assert all(isinstance(life, int) and 0 < life <= 60 for life in lives)

    def test_a_sweep_removes_what_a_channel_left_and_nothing_else(
        self, connect: Connect, spec: ChannelSpec, server: Valkey
    ) -> None:
        writer = connect(0)
        writer.put(key_of(0), [b"1"])
        other = ChannelSpec("redis", server.url, {"namespace": f"{spec.options['namespace']}0"})
        with RedisChannel(other, 0, 0, 0) as stranger:
            stranger.put(key_of(0), [b"2"])
            assert writer.get(key_of(0), timeout_s=PATIENCE_S) == b"1"
            assert len(sweep(spec)) == 2
            assert sweep(spec) == []
            assert stranger.get(key_of(0), timeout_s=PATIENCE_S) == b"2"
        with pytest.raises(PeerLost):
            writer.get(key_of(0), timeout_s=0)

    def test_only_own_keys_are_written(self, connect: Connect) -> None:
        writer = connect(0)
        for key in (key_of(1), key_of(0, round_number=1), key_of(0, generation=1)):
            with pytest.raises(ChannelError, match="rank 0"):
                writer.put(key, [b""])

    def test_many_parts_are_one_value(self, connect: Connect) -> None:
        connect(0).put(key_of(0), [bytes([number % 251]) for number in range(3000)])
        assert connect(1).get(key_of(0), timeout_s=PATIENCE_S) == bytes(number % 251 for number in range(3000))

    def test_no_more_is_asked_ahead_than_fits_the_window(self, connect: Connect, server: Valkey) -> None:
        writer, reader = connect(0), connect(1)
        reader.expect([key_of(0, step) for step in range(100)])
        server.ask("CONFIG", "RESETSTAT")
        for step in range(100):
            writer.put(key_of(0, step), [b"1"])
        assert writer.get(key_of(0, 99), timeout_s=PATIENCE_S) == b"1"
        assert server.calls()["get"] <= redis_reader.WINDOW + 1


class TestTwoServers(RedisContract):
    @pytest.fixture(scope="class")
    @classmethod
    def second(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
        with valkey(tmp_path_factory.mktemp("valkey")) as server:
            yield server

    @pytest.fixture
    def spec(self, server: Valkey, second: Valkey, options: dict[str, object]) -> ChannelSpec:
        return ChannelSpec("redis", f"{server.url},{second.url}", options)

    def test_each_has_its_share(self, connect: Connect, server: Valkey, second: Valkey, spec: ChannelSpec) -> None:
        writer = connect(0)
        for step in range(100):
            writer.put(key_of(0, step), [b"1"])
        assert writer.get(key_of(0, 99), timeout_s=PATIENCE_S) == b"1"
        pattern = f"{{{spec.options['namespace']}/*}}"
        shares = [len(found) for one in (server, second) if isinstance(found := one.ask("KEYS", pattern), list)]
        assert sum(shares) == 100
        assert min(shares) > 20
        assert len(sweep(spec)) == 200


class TestTls(RedisContract):
    @pytest.fixture(scope="class")
    @classmethod
    def certificate(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return self_signed(tmp_path_factory.mktemp("tls") / "certificate.pem")

    @pytest.fixture(scope="class")
    @classmethod
    def port(cls, server: Valkey, certificate: Path) -> Iterator[int]:
        with tls_relay(server.port, certificate) as port:
            yield port

    @pytest.fixture
    def spec(self, port: int, certificate: Path, options: dict[str, object]) -> ChannelSpec:
        return ChannelSpec("redis", f"rediss://127.0.0.1:{port}", {**options, "ca_pem": certificate.read_text()})

    def test_an_unknown_authority_is_not_trusted(self, spec: ChannelSpec) -> None:
        with pytest.raises(ChannelError, match="not trusted"):
            RedisChannel(ChannelSpec("redis", spec.url), 0, 0, 0)

    def test_another_host_is_not_trusted(self, spec: ChannelSpec) -> None:
        other = spec.url.replace("127.0.0.1", "localhost")
        with pytest.raises(ChannelError, match="not trusted"):
            RedisChannel(ChannelSpec("redis", other, spec.options), 0, 0, 0)

    def test_a_server_without_tls_is_told(
        self, spec: ChannelSpec, server: Valkey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_connect, "CONNECT_S", 0.1)  # it waits for the rest of what it takes for a command
        with pytest.raises(ChannelError, match="speaks no TLS"):
            RedisChannel(ChannelSpec("redis", f"rediss://127.0.0.1:{server.port}", spec.options), 0, 0, 0)

    def test_a_client_without_tls_is_told(self, spec: ChannelSpec) -> None:
        with pytest.raises(ChannelError, match=r"closed the connection|broke|does not speak Redis"):
            RedisChannel(ChannelSpec("redis", spec.url.replace("rediss", "redis")), 0, 0, 0)
