"""How a Redis channel reads: in what order, over what, and that nobody polls."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.backends.channels.redis import RedisChannel, sweep
from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import (
    PATIENCE_S,
    key_of,
)
from tests.support.valkey import Valkey, valkey

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def options() -> dict[str, object]:
    """Of a channel that is empty when a test begins."""
    return {"namespace": f"test-{next(_numbers)}", "ttl_s": 60}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_replies_are_never_swapped_or_lost(server: Valkey, data: st.DataObject) -> None:
    """Whatever is announced, given up, read out of turn or discarded: a value read is the value of its key."""
    spec = ChannelSpec("redis", server.url, {"namespace": f"test-{next(_numbers)}", "ttl_s": 60})
    steps = st.integers(0, 9)
    there: set[int] = set()
    gone: set[int] = set()
    announced: list[int] = []
    with RedisChannel(spec, 0, 0, 0) as writer, RedisChannel(spec, 0, 0, 1) as reader:
        for _ in range(data.draw(st.integers(1, 25))):
            step = data.draw(steps)
            action = data.draw(st.sampled_from(["put", "put", "expect", "get", "get", "get announced", "discard"]))
            if action == "put" and step not in there | gone:
                writer.put(key_of(0, step), [_content(step)])
                there.add(step)
            elif action == "expect":
                new = [step for step in data.draw(st.lists(steps, unique=True)) if step not in announced]
                reader.expect([key_of(0, step) for step in new])
                announced += new
            elif action == "discard" and step in there:
                writer.discard(key_of(0, step))
                there.remove(step)
                gone.add(step)
            elif action.startswith("get"):
                step = announced[0] if announced and action == "get announced" else step
                timeout_s = PATIENCE_S if step in there else data.draw(st.sampled_from([0, 0.001]))
                try:
                    found = _read(reader, step, timeout_s)
                except ChannelError:  # discarded between the reader's two requests, who is of no use any more
                    assert step in gone
                    return
                # What was asked for ahead may have been sent before it was discarded.
                assert found in ((_content(step),) if step in there else (None, _content(step)))
                assert found is None or step in there | gone
                if found is not None and step in announced:
                    announced.remove(step)
        for step in sorted(there, key=lambda step: (step not in announced, step)):
            assert _read(reader, step, PATIENCE_S) == _content(step)


def _content(step: int) -> bytes:
    return bytes([step]) * (1 + step * 997)


def _read(reader: RedisChannel, step: int, timeout_s: float) -> bytes | None:
    try:
        return reader.get(key_of(0, step), timeout_s=timeout_s)
    except PeerLost:
        return None


def test_a_unix_socket(server: Valkey, options: dict[str, object]) -> None:
    spec = ChannelSpec("redis", f"unix://{server.socket}?db=3", options)
    with RedisChannel(spec, 0, 0, 0) as writer, RedisChannel(spec, 0, 0, 1) as reader:
        reader.expect([key_of(0)])
        writer.put(key_of(0), [bytes(3_000_000)])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == bytes(3_000_000)
        assert server.info("keyspace")["db3"].startswith("keys=2,")
        assert len(sweep(spec)) == 2


def test_readers_wait_at_the_server_and_all_are_woken(server: Valkey, options: dict[str, object]) -> None:
    spec = ChannelSpec("redis", server.url, options)
    with RedisChannel(spec, 0, 0, 0) as writer, ThreadPoolExecutor(8) as pool:
        readers = [RedisChannel(spec, 0, 0, rank) for rank in range(1, 9)]
        found = [pool.submit(reader.get, key_of(0), timeout_s=PATIENCE_S) for reader in readers]
        while int(server.info("clients")["blocked_clients"]) < len(readers):
            pass
        writer.put(key_of(0), [b"1"], readers=8)
        assert [future.result() for future in found] == [b"1"] * 8
        for reader in readers:
            reader.close()
