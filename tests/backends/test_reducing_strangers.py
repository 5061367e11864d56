"""Who may speak to the reducing store, and what strangers get, of it and of those who only pretend to be one."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.backends.channels import reducing_protocol as protocol
from smlt.backends.channels import reducing_server
from smlt.backends.channels.reducing import ReducingChannel, probe
from smlt.backends.channels.reducing_protocol import Address, Request
from smlt.backends.channels.reducing_server import ReducingServer
from smlt.backends.channels.reducing_store import Store
from smlt.core.errors import ChannelError, ConfigError
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import PATIENCE_S, key_of
from tests.support.reducing import (
    TOKEN,
    ServedStore,
    all_of,
    all_that_comes_of,
    anywhere,
    connect,
    in_this_process,
    served_store,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStore]:
    with served_store(tmp_path_factory.mktemp("store"), memory_bytes=1 << 20) as store:
        yield store


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
