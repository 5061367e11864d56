"""The suite on a channel of files; and nothing is asked of the store that would cost more than it must."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smlt
from smlt.backends.channels import object as object_channel
from smlt.backends.file_store import UNLISTED
from smlt.core.errors import PeerLost, ProtocolError, StorageError
from smlt.core.storage import Channel, StoreSpec
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.sync.packed import PackedScatterReduce
from smlt.core.task import Region
from smlt.testing.channel import ChannelContract, OpenChannel, key_of
from tests.support.channels import Patient, in_threads
from tests.support.stores import DictStore


class TestObjectChannel(ChannelContract):
    @pytest.fixture
    def open_channel(self, tmp_path: Path) -> OpenChannel:
        spec = object_channel.spec_for(StoreSpec("file", (tmp_path / "ours").as_uri()))
        return functools.partial(object_channel.ObjectChannel, spec)

    @pytest.fixture
    def open_elsewhere(self, tmp_path: Path) -> OpenChannel:
        spec = object_channel.spec_for(StoreSpec("file", (tmp_path / "theirs").as_uri()))
        return functools.partial(object_channel.ObjectChannel, spec)


LATE = key_of(0, piece="late")


class Waiting:
    """A clock that only pauses move; notes them with the time that was waited before, and tells who wants to know."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses: list[tuple[float, float]] = []
        self.until = lambda: None

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.pauses.append((self.now_s, seconds))
        self.now_s += seconds
        self.until()


def test_who_waits_asks_less_and_less_often(tmp_path: Path) -> None:
    spec = object_channel.spec_for(StoreSpec("file", tmp_path.as_uri()))
    waiting = Waiting()
    waiting.until = lambda: writer.put(LATE, [b"value"]) if len(waiting.pauses) == 60 else None
    writer = object_channel.ObjectChannel(spec, 0, 0, 0)
    reader = object_channel.ObjectChannel(spec, 0, 0, 1, clock=waiting.clock, sleep=waiting.sleep)
    assert reader.get(LATE, timeout_s=60) == b"value"
    assert waiting.pauses[0] == (0, 0.5e-3)
    assert all(pause_s == min(max(0.5e-3, waited_s / 8), 50e-3) for waited_s, pause_s in waiting.pauses)
    assert waiting.pauses[-1][1] == 50e-3
    assert reader.stats().requests == {"get": 1}


def test_who_asks_again_has_been_waiting_all_the_time(tmp_path: Path) -> None:
    spec = object_channel.spec_for(StoreSpec("file", tmp_path.as_uri()))
    waiting = Waiting()
    reader = object_channel.ObjectChannel(spec, 0, 0, 1, clock=waiting.clock, sleep=waiting.sleep)
    for _ in range(4):
        with pytest.raises(PeerLost):
            reader.get(LATE, timeout_s=0.2)
    assert waiting.now_s == pytest.approx(0.8)
    asked_again = [pause_s for waited_s, pause_s in waiting.pauses if waited_s > 0.4]
    assert len(asked_again) <= 10
    waiting.pauses.clear()
    with pytest.raises(PeerLost):
        reader.get(key_of(0, piece="other"), timeout_s=0.2)
    assert waiting.pauses[0][1] == 0.5e-3


def test_a_discarded_value_leaves_its_room_to_the_next(tmp_path: Path) -> None:
    spec = object_channel.spec_for(StoreSpec("file", tmp_path.as_uri()))
    files = set()
    with object_channel.ObjectChannel(spec, 0, 0, 0) as writer, object_channel.ObjectChannel(spec, 0, 0, 1) as reader:
        for step in range(10):
            writer.discard(key_of(0, step - 2))
            writer.put(key_of(0, step), [bytes([step]) * 100_000])
            files |= {path.stat().st_ino for path in tmp_path.rglob("grad.0")}
            assert set(reader.view(key_of(0, step), timeout_s=60)) == {step}
    assert len(files) == 2
    assert not list((tmp_path / UNLISTED).glob("staged-*"))


class TestReadsAhead:
    """A store where requests take their time is asked for all that is expected at once."""

    @pytest.fixture
    def store(self) -> DictStore:
        return DictStore()

    @pytest.fixture
    def connect(self, store: DictStore) -> Iterator[Callable[..., Channel]]:
        with ExitStack() as stack:

            def connect(rank: int, **more: Any) -> Channel:
                spec = object_channel.spec_for(StoreSpec("dict", "dict://"))
                channel = object_channel.ObjectChannel(spec, 0, 0, rank, open_store=lambda spec: store, **more)
                return stack.enter_context(channel)

            yield connect

    def test_what_is_expected_is_asked_for_at_once(self, store: DictStore, connect: Callable[..., Channel]) -> None:
        keys = [key_of(rank) for rank in range(3)]
        for key in keys:
            connect(key.rank).put(key, [b"0123456789"])
        together = threading.Barrier(3, timeout=60)
        store.before = lambda operation, key: (together.wait(), None)[1]
        reader = connect(3)
        reader.expect(keys, [(rank, 2) for rank in range(3)])
        seen = [reader.view(key, timeout_s=60, offset=key.rank, length=2) for key in keys]
        assert [bytes(part) for part in seen] == [b"01", b"12", b"23"]
        assert reader.stats().requests == {"get": 3}
        assert reader.stats().bytes_down == 6

    def test_nothing_is_asked_while_nobody_waits(self, store: DictStore, connect: Callable[..., Channel]) -> None:
        operations = []
        store.before = lambda operation, key: operations.append(operation)
        connect(3).expect([key_of(rank) for rank in range(3)], [(0, 4)] * 3)
        assert operations == []

    def test_one_client_has_so_many_requests_under_way_and_no_more(
        self, store: DictStore, connect: Callable[..., Channel]
    ) -> None:
        store.concurrency = 3
        keys = [key_of(rank) for rank in range(12)]
        for key in keys:
            connect(key.rank).put(key, [b"value"])
        under_way, most = Counter(), []
        lock = threading.Lock()

        def count(change: int) -> None:
            with lock:
                under_way["get"] += change
                most.append(under_way["get"])

        store.before, store.after = lambda operation, key: count(1), lambda operation, key: count(-1)
        reader = connect(99)
        reader.expect(keys, [(0, 5)] * len(keys))
        assert all(bytes(reader.view(key, timeout_s=60, offset=0, length=5)) == b"value" for key in keys)
        assert max(most) <= 3
        assert most[-1] == 0
        assert len(most) == 2 * len(keys)

    def test_what_was_asked_for_too_early_is_asked_for_again(
        self, store: DictStore, connect: Callable[..., Channel]
    ) -> None:
        keys = [key_of(rank) for rank in range(4)]
        waiting = Waiting()
        waiting.until = lambda: keys_left and connect(keys_left[-1].rank).put(keys_left.pop(), [b"value"])
        keys_left = keys.copy()
        reader = connect(9, clock=waiting.clock, sleep=waiting.sleep)
        reader.expect(keys, [(0, 5)] * len(keys))
        assert all(bytes(reader.view(key, timeout_s=60, offset=0, length=5)) == b"value" for key in keys)

    def test_an_error_is_told_to_whoever_waits_for_that_value(
        self, store: DictStore, connect: Callable[..., Channel]
    ) -> None:
        first, second = key_of(0), key_of(1)
        for key in (first, second):
            connect(key.rank).put(key, [b"value"])

        def fail(operation: str, key: str) -> None:
            if key.endswith(".1"):
                raise StorageError("unreachable")

        store.before = fail
        reader = connect(9)
        reader.expect([first, second], [(0, 5)] * 2)
        assert bytes(reader.view(first, timeout_s=60, offset=0, length=5)) == b"value"
        with pytest.raises(StorageError, match="unreachable"):
            reader.view(second, timeout_s=60, offset=0, length=5)
        store.before = lambda operation, key: None
        assert bytes(reader.view(second, timeout_s=60, offset=0, length=5)) == b"value"

    def test_no_thread_stays(self, connect: Callable[..., Channel]) -> None:
        before = threading.active_count()
        keys = [key_of(rank) for rank in range(4)]
        reader = connect(9)
        reader.expect(keys, [(0, 5)] * 4)
        with pytest.raises(PeerLost):
            reader.view(keys[0], timeout_s=0, offset=0, length=5)
        reader.close()
        assert threading.active_count() == before

    @pytest.mark.parametrize("world_size", [2, 5])
    def test_sums_cost_what_the_pattern_states(
        self, store: DictStore, connect: Callable[..., Channel], world_size: int
    ) -> None:
        check_sums(lambda rank: connect(rank), world_size)
        assert not list(store.list("0/0/0/"))


@pytest.mark.parametrize("world_size", [2, 3])
def test_sums_through_files_whose_room_is_used_again(tmp_path: Path, world_size: int) -> None:
    spec = object_channel.spec_for(StoreSpec("file", tmp_path.as_uri()))
    with ExitStack() as stack:
        channels = [stack.enter_context(object_channel.ObjectChannel(spec, 0, 0, rank)) for rank in range(world_size)]
        check_sums(lambda rank: channels[rank], world_size)
        assert len(list((tmp_path / UNLISTED).glob("staged-*"))) == 0
    assert len(list(tmp_path.rglob("*.[0-9]"))) == 4 * world_size  # the last two steps'


def check_sums(channel_of: Callable[[int], Channel], world_size: int, steps: int = 5) -> None:
    """Ranks that add up numbers, step by step, come to what they should, in as many requests as the pattern states."""
    regions = (Region("float32", 100_003), Region("int64", 5))

    def work(rank: int) -> None:
        channel = channel_of(rank)
        sums = PackedScatterReduce(Seat(channel, (0, 0), rank, world_size, Patient()), regions)
        for step in range(steps):
            for array in sums.contribution(step):
                array += np.arange(len(array), dtype=array.dtype) % 1000 * (rank + step)
            _, totals = sums.reduce(Header(step))
            for total in totals:
                expected = np.arange(len(total)) % 1000 * sum(rank + step for rank in range(world_size))
                assert np.array_equal(total, expected)
        assert channel.stats().requests == {"put": 2 * steps, "get": 2 * (world_size - 1) * steps}

    assert in_threads(work, world_size) == [None] * world_size


def test_a_job_through_files_comes_to_the_bits_of_one_through_shared_memory(tmp_path: Path) -> None:
    task = Path(__file__).parents[1] / "support" / "linear.py"
    results = [
        smlt.train(
            f"{task}:Linear",
            workers=3,
            epochs=2,
            global_batch=16,
            runs_dir=tmp_path,
            settings={"sync.channel": channel},
        )
        for channel in ("shared_memory", "object")
    ]
    assert results[0].summary.state_sha256 == results[1].summary.state_sha256
    assert results[1].summary.allocation["sync"]["channel"] == "object"
    assert not list((tmp_path / results[1].summary.run / ".unlisted").glob("channel"))


def test_what_a_stranger_wrote_in_the_place_of_a_contribution_is_never_summed(tmp_path: Path) -> None:
    """The channel gives what lies there; a contribution without its header is none, and every rank stops."""
    spec = object_channel.spec_for(StoreSpec("file", (tmp_path / "ours").as_uri()))
    regions, world_size = (Region("float32", 1000),), 2

    def impatient(piece: str, peer: int) -> None:
        raise PeerLost(f"rank {peer} said no more")

    def train(rank: int) -> None:
        with object_channel.ObjectChannel(spec, 1, 0, rank) as channel:
            sums = PackedScatterReduce(Seat(channel, (1, 0), rank, world_size, impatient), regions)
            sums.contribution(0)[0][:] = 1
            if rank == 1:  # its function was replaced by a stranger's writes
                channel._store.put(f"1/0/0/grad.{rank}", b"\x07" * (Header.SIZE + 2048))
                raise PeerLost("gone")
            sums.reduce(Header(0))

    outcome, _ = in_threads(train, world_size)
    assert isinstance(outcome, ProtocolError)
    assert "stranger" in outcome.message
