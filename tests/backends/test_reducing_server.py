"""The process of the reducing store: how much it holds, when it ends, and the command that starts it."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smlt.backends.channels.reducing import ReducingChannel, probe
from smlt.backends.channels.reducing_protocol import Address
from smlt.backends.channels.reducing_server import ReducingServer
from smlt.backends.channels.reducing_store import Store
from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import PATIENCE_S, key_of
from tests.cli.conftest import SMLT
from tests.support.clocks import FakeClock
from tests.support.reducing import (
    TOKEN,
    ServedStore,
    anywhere,
    in_this_process,
    served_store,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStore]:
    with served_store(tmp_path_factory.mktemp("store"), memory_bytes=1 << 20) as store:
        yield store


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
