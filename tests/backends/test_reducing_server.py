"""The process of the reducing store: who may come in, what strangers get, how much it holds, and when it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.backends.channels import reducing_protocol as protocol
from smlt.backends.channels import reducing_server
from smlt.backends.channels.reducing import ReducingChannel, probe
from smlt.backends.channels.reducing_protocol import Address, Request
from smlt.backends.channels.reducing_server import ReducingServer
from smlt.backends.channels.reducing_store import Store
from smlt.core.errors import ChannelError, ConfigError, PeerLost
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import PATIENCE_S, key_of
from tests.cli.conftest import SMLT
from tests.support.clocks import FakeClock
from tests.support.reducing import TOKEN, ServedStore, served_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStore]:
    with served_store(tmp_path_factory.mktemp("store"), memory_bytes=1 << 20) as store:
        yield store


@contextmanager
def in_this_process(server: ReducingServer) -> Iterator[ChannelSpec]:
    """Serve in a thread, until the end of the block or of the server."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield ChannelSpec("reducing", str(server.address))
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def anywhere() -> Address:
    return Address("127.0.0.1")


def connect(spec: ChannelSpec) -> socket.socket:
    address = Address.parse(spec.url)
    return socket.create_connection((address.host, address.port), PATIENCE_S)


def all_of(connection: socket.socket) -> bytes:
    """What it says until it hangs up."""
    heard = b""
    try:
        while more := connection.recv(1 << 16):
            heard += more
    except ConnectionResetError:
        pass
    return heard


def all_that_comes_of(connection: socket.socket, said: bytes) -> bytes:
    """What the other side answers until it hangs up, which it may do at once."""
    with suppress(OSError):
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
    return all_of(connection)


# Who may come in


@pytest.mark.parametrize("token", [b"", b"another", TOKEN.encode() + b"x"])
def test_a_wrong_token_is_refused(store: ServedStore, tmp_path: Path, token: bytes) -> None:
    (tmp_path / "token").write_bytes(token)
    spec = ChannelSpec("reducing", store.url, {"token_file": str(tmp_path / "token")} if token else {})
    with ReducingChannel(spec, 0, 0, 0) as channel, pytest.raises(ChannelError, match="different tokens") as caught:
        channel.put(key_of(0), [b"1"])
    assert TOKEN not in str(caught.value)
    assert "another" not in str(caught.value)


def test_a_client_does_not_trust_a_store_that_does_not_know_the_token(store: ServedStore) -> None:
    with in_this_process(ReducingServer(anywhere(), Store(1 << 20))) as impostor, pytest.raises(ChannelError):
        probe(ChannelSpec("reducing", impostor.url, store.spec().options))


def test_the_token_may_be_in_the_environment(store: ServedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ChannelSpec("reducing", store.url, {"token_env": "STORE_TOKEN"})
    with pytest.raises(ConfigError, match="STORE_TOKEN"):
        probe(spec)
    monkeypatch.setenv("STORE_TOKEN", TOKEN)
    assert probe(spec).clients >= 1


def test_the_token_never_travels_nor_shows(store: ServedStore) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(protocol.MAGIC + bytes(protocol.NONCE_BYTES))
                heard.append(connection.recv(protocol.HELLO.size, socket.MSG_WAITALL))
                connection.sendall(bytes(protocol.PROOF_BYTES))

        thread = threading.Thread(target=listen)
        thread.start()
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ChannelError, match="different tokens"):
            probe(ChannelSpec("reducing", url, store.spec().options))
        thread.join()
    assert len(heard[0]) == protocol.HELLO.size
    assert TOKEN.encode() not in heard[0]
    arguments = Path(f"/proc/{store.process.pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in arguments


def test_without_a_token_only_this_machine_is_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tcp://0\.0\.0\.0:0"):
        ReducingServer(Address("0.0.0.0"), Store(1 << 20))
    for local in (anywhere(), Address("::1"), Address("localhost"), Address(path=str(tmp_path / "socket"))):
        with in_this_process(ReducingServer(local, Store(1 << 20))) as spec:
            assert probe(spec).clients == 1


def test_only_the_user_may_use_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with in_this_process(ReducingServer(Address(path=str(path)), Store(1 << 20))):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


# Strangers


@given(st.binary(max_size=300) | st.just(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10))
@settings(max_examples=30, deadline=None)
def test_a_stranger_is_told_nothing_and_turned_away(store: ServedStore, said: bytes) -> None:
    with connect(store.spec()) as stranger:
        heard = stranger.recv(protocol.GREETING_BYTES, socket.MSG_WAITALL)
        assert heard[: len(protocol.MAGIC)] == protocol.MAGIC
        assert all_that_comes_of(stranger, said) == b""
    assert probe(store.spec()).used_bytes == 0


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=30, deadline=None)
def test_a_client_that_speaks_nonsense_hurts_only_itself(store: ServedStore, said: bytes) -> None:
    with ReducingChannel(store.spec("nonsense"), 0, 0, 0) as channel:
        channel.put(key_of(0), [b"1"])
        assert channel._link is not None
        connection = channel._link._socket
        connection.setblocking(True)
        all_that_comes_of(connection, said)
        assert channel.get(key_of(0), timeout_s=0) == b"1"  # over another connection
        channel.discard(key_of(0))


@pytest.mark.parametrize(
    "request_",
    [
        Request(99),
        Request(protocol.REDUCE, "k", count=0, size=8),
        Request(protocol.REDUCE, "k", count=2, rank=2, size=8),
        Request(protocol.REDUCE, "k", count=1, size=8, start=9),
        Request(protocol.REDUCE, "k", count=1, size=7),
        Request(protocol.REDUCE, "k", count=1, size=8, dtype=3),
        Request(protocol.REDUCE, "k", count=1 << 20, size=8),
        Request(protocol.PUT, "k" * (protocol.MOST_KEY_BYTES + 1)),
        Request(protocol.REDUCE, "k", bytes(protocol.MOST_HEADER_BYTES + 1), count=1, size=8),
    ],
    ids=lambda request: f"{request.verb}-{len(request.key)}-{request.count}-{request.rank}-{request.size}",
)
def test_a_request_that_makes_no_sense_ends_the_connection(store: ServedStore, request_: Request) -> None:
    with ReducingChannel(store.spec(), 0, 0, 0) as channel:
        channel.put(key_of(0), [b""])
        channel.discard(key_of(0))
        assert channel._link is not None
        connection = channel._link._socket
        connection.setblocking(True)
        assert all_that_comes_of(connection, request_.packed() + bytes(16)) == b""
    assert probe(store.spec()).used_bytes == 0


def test_who_says_nothing_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reducing_server, "HANDSHAKE_S", 0.05)
    monkeypatch.setattr(reducing_server, "TICK_S", 0.01)
    with in_this_process(ReducingServer(anywhere(), Store(1 << 20))) as spec, connect(spec) as silent:
        assert len(all_of(silent)) == protocol.GREETING_BYTES
        with ReducingChannel(spec, 0, 0, 0) as client:
            client.put(key_of(0), [b"1"])
            with connect(spec) as another:
                all_of(another)
            assert client.get(key_of(0), timeout_s=PATIENCE_S) == b"1"


def test_strangers_do_not_take_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reducing_server, "MOST_STRANGERS", 2)
    with in_this_process(ReducingServer(anywhere(), Store(1 << 20))) as spec:
        strangers = [connect(spec) for _ in range(2)]
        for stranger in strangers:
            stranger.recv(protocol.GREETING_BYTES, socket.MSG_WAITALL)
        with connect(spec) as third:
            assert all_of(third) == b""
        for stranger in strangers:
            stranger.close()


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n" * 9, b"smltred\x63" + bytes(100)])
def test_what_is_no_store_is_recognised(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(said)
                all_of(connection)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ChannelError, match="no reducing store, or one of another version"):
            probe(ChannelSpec("reducing", f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()


def test_a_store_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("smlt.backends.channels.reducing_link.ANSWER_S", 0.05)
    monkeypatch.setattr("smlt.backends.channels.reducing_link.WAIT_SLICE_S", 0.01)
    with served_store(tmp_path) as store, ReducingChannel(store.spec(), 0, 0, 0) as channel:
        channel.put(key_of(0), [b"1"])
        store.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, store.process.pid, os.WSTOPPED)
        with pytest.raises(ChannelError, match="does not answer"):
            channel.get(key_of(0), timeout_s=0)


# Memory


def test_values_fill_the_memory_and_no_more(store: ServedStore) -> None:
    with ReducingChannel(store.spec("full"), 0, 0, 0) as channel:
        channel.put(key_of(0), [bytes(700_000)])
        for size in (400_000, 10_000_000):
            with pytest.raises(ChannelError, match="no room for a value of") as caught:
                channel.put(key_of(0, 1), [bytes(size)])
            assert "--memory" in caught.value.hint
        assert channel.store_stats().used_bytes == 700_000
        channel.discard(key_of(0))
        channel.put(key_of(0, 1), [bytes(400_000)])
        channel.discard(key_of(0, 1))
        assert channel.store_stats().used_bytes == 0
        assert channel.store_stats().requests == {"put": 2}


def test_sums_give_their_memory_back(store: ServedStore) -> None:
    with ReducingChannel(store.spec("sums"), 0, 0, 0) as channel:
        for step in range(5):
            channel.reduce_into(key_of(0, step), b"", np.ones(200_000, np.float32), ranks=1, patience=lambda: None)
            while (used := channel.store_stats().used_bytes) != 0:
                assert used == 800_000  # until its threads have let go


def test_a_value_vanishes_with_its_last_reader(store: ServedStore) -> None:
    with ReducingChannel(store.spec("readers"), 0, 0, 0) as writer, ReducingChannel(
        store.spec("readers"), 0, 0, 1
    ) as reader:  # fmt: skip
        writer.put(key_of(0), [bytes(1000)], readers=2)
        for _ in range(2):
            assert reader.get(key_of(0), timeout_s=0) == bytes(1000)
        with pytest.raises(PeerLost):
            reader.get(key_of(0), timeout_s=0)
        assert reader.store_stats().used_bytes == 0


def test_a_reader_that_hung_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smlt.backends.channels.reducing_values.HANG_UP_S", 0.01)
    store = Store(1 << 20)
    with pytest.raises(ConnectionAbortedError):
        store.values.read("key", PATIENCE_S, lambda: True)
    store.values.put("key", store.values.room_for(1), 1, b"me")
    assert store.values.read("key", 0, lambda: False) is not None


def test_what_a_client_left_is_forgotten_after_a_while() -> None:
    clock = FakeClock()
    store = Store(1 << 20, linger_s=30.0, clock=clock)
    with in_this_process(ReducingServer(anywhere(), store)) as spec, ReducingChannel(spec, 0, 0, 1) as reader:
        with ReducingChannel(spec, 0, 0, 0) as writer:
            writer.put(key_of(0), [b"1"])
        while all(client.connections for client in store._clients.values()):
            assert reader.store_stats().clients <= 2  # until the store has seen that the writer is gone
        clock.advance(29.0)
        store.sweep()
        assert reader.get(key_of(0), timeout_s=0) == b"1"
        clock.advance(2.0)
        store.sweep()
        with pytest.raises(PeerLost):
            reader.get(key_of(0), timeout_s=0)
        assert reader.store_stats().clients == 1


# The end


def test_it_stops_when_nobody_is_connected_for_a_while() -> None:
    server = ReducingServer(anywhere(), Store(1 << 20), idle_s=0.2)
    thread = threading.Thread(target=server.run)
    thread.start()
    spec = ChannelSpec("reducing", str(server.address))
    with ReducingChannel(spec, 0, 0, 0) as client, pytest.raises(PeerLost):
        client.get(key_of(0), timeout_s=1.0)  # which is longer than it would wait without a client
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    with pytest.raises(ChannelError, match="is lost"):
        probe(spec)


def test_it_stops_at_a_signal_and_leaves_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for number in (signal.SIGTERM, signal.SIGINT):
        with served_store(tmp_path, listen=f"unix:{path}") as store, ReducingChannel(store.spec(), 0, 0, 0) as client:
            client.put(key_of(0), [b"1"])
            store.process.send_signal(number)
            assert store.process.wait(PATIENCE_S) == 0
            assert not path.exists()
            with pytest.raises(ChannelError, match="is lost"):
                client.get(key_of(0), timeout_s=PATIENCE_S)


# The command


@pytest.fixture
def serve_channel(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [SMLT, "serve-channel", *arguments]
        started.append(subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_command_prints_its_address_and_stops_when_idle(
    tmp_path: Path, serve_channel: Callable[..., subprocess.Popen[str]]
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    process = serve_channel("--token-file", "token", "--idle", "300ms", "--memory", "64MiB")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on tcp://127.0.0.1:")
    spec = ChannelSpec("reducing", line.split()[-1], {"token_file": str(tmp_path / "token")})
    assert probe(spec).limit_bytes == 64 << 20
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--listen", "0.0.0.0:0"], 2, "--token-file"),
        (["--listen", "nowhere"], 2, "not an address"),
        (["--listen", "unix:no/folder"], 1, "cannot listen at unix://no/folder"),
        (["--token-file", "none"], 2, "no token in none"),
        (["--idle", "soon"], 2, "not a duration"),
        (["--memory", "12"], 2, "not a size of memory"),
    ],
)
def test_what_cannot_be_served_is_said(main: Any, arguments: list[str], code: int, told: str) -> None:
    found, out, err = main("serve-channel", *arguments)
    assert (found, out) == (code, "")
    assert told in err


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from smlt.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_an_empty_token_file_is_refused(main: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" \n")
    assert main("serve-channel", "--token-file", "token")[0] == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1:80", "tcp://127.0.0.1:80"),
        ("tcp://host:1", "tcp://host:1"),
        ("[::1]:0", "tcp://[::1]:0"),
        ("unix:relative", "unix://relative"),
        ("unix:///a/b", "unix:///a/b"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert str(Address.parse(text)) == shown
    assert Address.parse(shown) == Address.parse(text)
