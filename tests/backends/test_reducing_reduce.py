"""Sums over the reducing channel, with a real store: what every rank gets, and what it gets when something breaks."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.backends.channels import reducing_link
from smlt.backends.channels import reducing_protocol as protocol
from smlt.backends.channels.reducing import ReducingChannel
from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import ChannelKey, ChannelSpec
from smlt.testing.channel import PATIENCE_S, key_of
from smlt.testing.team import Team
from tests.support.reducing import Cutter, ServedStore, served_store

Array = np.ndarray[Any, Any]

_numbers = itertools.count()


class GaveUp(Exception):
    """What patience raises here."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStore]:
    with served_store(tmp_path_factory.mktemp("store"), memory_bytes=64 << 20) as store:
        yield store


@pytest.fixture
def spec(store: ServedStore) -> ChannelSpec:
    return store.spec(f"test-{next(_numbers)}")


def header_of(rank: int) -> bytes:
    return b"header %d." % rank


def never() -> None:
    """Patience without end."""


def give_up() -> None:
    raise GaveUp


def reduce_once(
    channel: ReducingChannel, own: Array, key: ChannelKey, ranks: int, patience: Any = never
) -> list[bytes]:
    return channel.reduce_into(key, header_of(key.rank), own, ranks=ranks, patience=patience)


def reduce_all(
    spec: ChannelSpec, values: list[Array], order: list[int] | None = None
) -> list[tuple[list[bytes], bytes]]:
    """Headers and sum as each rank gets them, from threads that start in this order."""

    def reduce(rank: int) -> tuple[list[bytes], bytes]:
        own = values[rank].copy()
        with ReducingChannel(spec, 0, 0, rank) as channel:
            return reduce_once(channel, own, key_of(rank), len(values)), own.tobytes()

    with ThreadPoolExecutor(len(values)) as pool:
        found = {rank: pool.submit(reduce, rank) for rank in order or range(len(values))}
        return [found[rank].result(PATIENCE_S) for rank in range(len(values))]


def expected(values: list[Array]) -> list[tuple[list[bytes], bytes]]:
    total = values[0].copy()
    with np.errstate(all="ignore"):
        for value in values[1:]:
            total = total + value
    return [([header_of(rank) for rank in range(len(values))], total.tobytes())] * len(values)


def some(ranks: int, elements: int = 1000) -> list[Array]:
    rng = np.random.default_rng(ranks)
    return [rng.standard_normal(elements).astype(np.float32) for _ in range(ranks)]


# Sums


@given(
    st.integers(1, 9),
    st.integers(0, 400_000),
    st.sampled_from([np.float32, np.float64, np.int64]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None)
def test_every_rank_gets_the_sum_in_rank_order(
    store: ServedStore, ranks: int, elements: int, dtype: Any, random: Any
) -> None:
    rng = np.random.default_rng(random.getrandbits(32))
    scale = 10.0 ** rng.integers(-9, 9, elements)
    values = [(rng.standard_normal(elements) * scale).astype(dtype) for _ in range(ranks)]
    order = random.sample(range(ranks), ranks)
    assert reduce_all(store.spec(f"test-{next(_numbers)}"), values, order) == expected(values)


def test_what_is_no_finite_number_is_summed_as_numpy_does(spec: ChannelSpec) -> None:
    values = np.array([[1e38, np.inf, np.inf, np.nan, -0.0], [3e38, -np.inf, 1.0, 1.0, -0.0]], np.float32)
    assert reduce_all(spec, list(values)) == expected(list(values))


def test_headers_may_be_empty(spec: ChannelSpec) -> None:
    own = np.ones(3, np.float32)
    with ReducingChannel(spec, 0, 0, 0) as channel:
        assert channel.reduce_into(key_of(0), b"", own, ranks=1, patience=never) == [b""]


def test_processes_sum_step_after_step(spec: ChannelSpec) -> None:
    with Team(3) as team:
        assert team.run(_train, [(spec, rank, 3, 20) for rank in range(3)]) == [True] * 3


def _train(spec: ChannelSpec, rank: int, ranks: int, steps: int) -> bool:
    with ReducingChannel(spec, 0, 0, rank) as channel:
        for step in range(steps):
            own = np.full(200_000, rank + step, np.float64)
            channel.reduce_into(key_of(rank, step), b"%4d" % step, own, ranks=ranks, patience=never)
            if not (own == sum(peer + step for peer in range(ranks))).all():
                return False
        return channel.store_stats().requests == {"reduce": steps}


def test_sums_of_other_pieces_steps_rounds_and_generations_do_not_mix(spec: ChannelSpec) -> None:
    keys = [ChannelKey(0, 0, 0, "a", 0), ChannelKey(0, 0, 0, "b", 0), ChannelKey(0, 0, 1, "a", 0),
            ChannelKey(0, 1, 0, "a", 0), ChannelKey(1, 0, 0, "a", 0)]  # fmt: skip

    def reduce(number: int, rank: int) -> float:
        key, own = replace(keys[number], rank=rank), np.full(5000, 10.0**number, np.float64)
        with ReducingChannel(spec, key.generation, key.round, rank) as channel:
            reduce_once(channel, own, key, 2)
        return float(own[-1])

    jobs = [(number, rank) for rank in range(2) for number in range(len(keys))]
    with ThreadPoolExecutor(len(jobs)) as pool:
        assert list(pool.map(lambda job: reduce(*job), jobs)) == [2 * 10.0**number for number, _ in jobs]


def test_what_the_store_counted_is_what_the_client_counted(spec: ChannelSpec) -> None:
    with ReducingChannel(spec, 0, 0, 0) as channel:
        channel.put(key_of(0), [b"0123", b"456"])
        channel.get(key_of(0), timeout_s=PATIENCE_S)
        channel.get_into(key_of(0), memoryview(bytearray(3)), timeout_s=PATIENCE_S, offset=2)
        with pytest.raises(PeerLost):
            channel.get(key_of(1), timeout_s=0)
        channel.discard(key_of(0))
        reduce_once(channel, np.ones(10, np.float32), key_of(0, 1), 1)
        mine, theirs = channel.stats(), channel.store_stats()
        assert mine.requests == {"put": 1, "get": 2, "reduce": 1}
        assert (mine.bytes_up, mine.bytes_down) == (7 + 40 + 9, 7 + 3 + 40 + 9)
        assert (theirs.requests, theirs.bytes_up, theirs.bytes_down) == (mine.requests, mine.bytes_up, mine.bytes_down)


# What cannot be summed


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (np.ones(4, np.float16), "float16"),
        (np.ones(4, np.int32), "int32"),
        (np.ones(4, ">f4"), "float32"),
        (np.ones((2, 2), np.float32), "1-D"),
        (np.ones(8, np.float32)[::2], "gaps"),
        (np.frombuffer(bytes(8), np.float32), "written"),
    ],
)
def test_what_cannot_be_summed_is_refused(spec: ChannelSpec, buffer: Array, message: str) -> None:
    with ReducingChannel(spec, 0, 0, 0) as channel, pytest.raises(ChannelError, match=message):
        reduce_once(channel, buffer, key_of(0), 1)


def test_only_own_contributions_are_made(spec: ChannelSpec) -> None:
    with ReducingChannel(spec, 0, 0, 0) as channel:
        for key in (key_of(1), key_of(0, round_number=1), key_of(0, generation=1)):
            with pytest.raises(ChannelError, match="rank 0"):
                reduce_once(channel, np.ones(1, np.float32), key, 2)


@pytest.mark.parametrize(
    ("other", "ranks", "header"),
    [
        (np.ones(400_001, np.float32), 2, b"h"),
        (np.ones(400_000, np.float64), 2, b"h"),
        (np.ones(400_000, np.float32), 3, b"h"),
        (np.ones(400_000, np.float32), 2, b"hh"),
    ],
)
def test_ranks_that_sum_different_things_are_told_so(
    spec: ChannelSpec, other: Array, ranks: int, header: bytes
) -> None:
    def reduce(rank: int, own: Array, ranks: int, header: bytes) -> ChannelError:
        with ReducingChannel(spec, 0, 0, rank) as channel:
            with pytest.raises(ChannelError, match=r"rank 0 .*rank 1|rank 1 .*rank 0") as caught:
                channel.reduce_into(key_of(rank), header, own, ranks=ranks, patience=never)
            assert channel.store_stats().requests == {}  # the client goes on
            return caught.value

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(reduce, 0, np.ones(400_000, np.float32), 2, b"h")
        second = pool.submit(reduce, 1, other, ranks, header)
        for error in (first.result(PATIENCE_S), second.result(PATIENCE_S)):
            assert "400000 x float32 over 2 ranks, headers of 1 bytes" in str(error)
            assert f"{other.size} x {other.dtype} over {ranks} ranks, headers of {len(header)} bytes" in str(error)


def test_a_sum_over_the_memory_is_refused(spec: ChannelSpec) -> None:
    with ReducingChannel(spec, 0, 0, 0) as channel:
        with pytest.raises(ChannelError, match=r"needs 80\.0 MiB, the store has 64\.0 MiB") as caught:
            reduce_once(channel, np.zeros(20 << 20, np.float32), key_of(0), 1)
        assert "--memory" in caught.value.hint
        channel.put(key_of(0), [b"it goes on"])


# Losses


def test_patience_is_asked_while_others_are_waited_for(spec: ChannelSpec) -> None:
    asked = threading.Event()
    values = some(2)
    with ThreadPoolExecutor(1) as pool, ReducingChannel(spec, 0, 0, 0) as early, ReducingChannel(spec, 0, 0, 1) as late:
        waiting = pool.submit(reduce_once, early, values[0], key_of(0), 2, asked.set)
        assert asked.wait(PATIENCE_S)
        reduce_once(late, values[1], key_of(1), 2)
        waiting.result(PATIENCE_S)
    assert values[0].tobytes() == values[1].tobytes() == expected(some(2))[0][1]


def test_who_gives_up_may_come_again_and_is_added_once(spec: ChannelSpec) -> None:
    values = some(3, 300_000)
    for _ in range(3):  # the same (key, rank), each time over another connection, twice by another client
        with ReducingChannel(spec, 0, 0, 1) as impatient:
            for _ in range(2):
                with pytest.raises(GaveUp):
                    reduce_once(impatient, values[1].copy(), key_of(1), 3, give_up)
            assert impatient.stats().requests == {}
    assert reduce_all(spec, values) == expected(values)


def test_without_one_rank_there_is_no_sum(spec: ChannelSpec) -> None:
    values, kept = some(3), some(3)
    with ThreadPoolExecutor(2) as pool, ReducingChannel(spec, 0, 0, 0) as a, ReducingChannel(spec, 0, 0, 2) as b:
        for waiting in [pool.submit(reduce_once, each, values[rank], key_of(rank), 3, give_up)
                        for rank, each in ((0, a), (2, b))]:  # fmt: skip
            with pytest.raises(GaveUp):
                waiting.result(PATIENCE_S)
    assert all((value == before).all() for value, before in zip(values, kept, strict=True))


def test_a_contribution_that_was_cut_off_is_no_contribution(spec: ChannelSpec, store: ServedStore) -> None:
    values = some(2, 500_000)
    with Cutter(store.url, up=[1_000_000] * 2) as line, ReducingChannel(replace(spec, url=line.url), 0, 0, 1) as cut:
        with pytest.raises(ChannelError, match="is lost"):
            reduce_once(cut, values[1].copy(), key_of(1), 2)
        with ReducingChannel(spec, 0, 0, 0) as other, pytest.raises(GaveUp):
            reduce_once(other, values[0].copy(), key_of(0), 2, give_up)
        assert reduce_all(spec, values) == expected(values)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_connection_that_breaks_at_any_byte_is_made_again(store: ServedStore, data: st.DataObject) -> None:
    values = some(2, 200_000)
    spec = store.spec(f"test-{next(_numbers)}")
    rank, direction = data.draw(st.integers(0, 1)), data.draw(st.sampled_from(["up", "down"]))
    least = {"up": protocol.HELLO.size, "down": protocol.GREETING_BYTES + protocol.PROOF_BYTES}[direction]
    cut_after = data.draw(st.integers(least, least + 800_000))
    with Cutter(store.url, **{direction: [cut_after]}) as line, ThreadPoolExecutor(2) as pool:
        specs = [replace(spec, url=line.url) if each == rank else spec for each in range(2)]

        def reduce(each: int) -> tuple[list[bytes], bytes]:
            own = values[each].copy()
            with ReducingChannel(specs[each], 0, 0, each) as channel:
                return reduce_once(channel, own, key_of(each), 2), own.tobytes()

        assert list(pool.map(reduce, range(2), timeout=PATIENCE_S)) == expected(values)
        assert line.connections in (1, 2)


@pytest.mark.parametrize("cut_after", [0, 60, 200, 500])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_requests_for_values_are_made_again_too(
    spec: ChannelSpec, store: ServedStore, direction: str, cut_after: int
) -> None:
    with Cutter(store.url, **{direction: [cut_after]}) as line:
        with ReducingChannel(replace(spec, url=line.url), 0, 0, 0) as channel:
            for step in range(10):
                channel.put(key_of(0, step), [b"%d" % step * 10])
                assert channel.get(key_of(0, step), timeout_s=PATIENCE_S) == b"%d" % step * 10
                channel.discard(key_of(0, step - 1))
        assert line.connections == 2


def test_a_rank_that_is_killed_hurts_no_other_sum(spec: ChannelSpec) -> None:
    values = some(2)
    with Team(1) as team, ThreadPoolExecutor(1) as pool:
        team.start(_contribute_and_die, spec, member=0)
        with pytest.raises(EOFError):
            team.result(0)
        with ReducingChannel(spec, 0, 0, 0) as survivor, pytest.raises(GaveUp):
            reduce_once(survivor, np.ones(1 << 20, np.float32), key_of(0), 2, give_up)
        new = [ReducingChannel(spec, 0, 1, rank) for rank in range(2)]
        with new[0], new[1]:
            keys = [key_of(rank, round_number=1) for rank in range(2)]
            other = pool.submit(reduce_once, new[1], values[1], keys[1], 2)
            reduce_once(new[0], values[0], keys[0], 2)
            other.result(PATIENCE_S)
    assert values[0].tobytes() == values[1].tobytes() == expected(some(2))[0][1]


def _contribute_and_die(spec: ChannelSpec) -> None:
    push, pushes = reducing_link.Link._push, itertools.count()

    def push_ten(link: reducing_link.Link) -> None:
        if next(pushes) == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        push(link)

    reducing_link.Link._push = push_ten  # type: ignore[method-assign]
    reducing_link.WINDOW_BYTES = 100_000
    with ReducingChannel(spec, 0, 0, 1) as channel:
        reduce_once(channel, np.ones(1 << 20, np.float32), key_of(1), 2)


def test_a_store_that_is_killed_is_an_error_not_a_hang(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served_store(tmp_path_factory.mktemp("store")) as store, ExitStack() as stack:
        channels = [stack.enter_context(ReducingChannel(store.spec(), 0, 0, rank)) for rank in range(2)]
        with ThreadPoolExecutor(2) as pool:
            calls: list[Callable[[], object]] = [
                lambda: reduce_once(channels[0], np.ones(1 << 20, np.float32), key_of(0), 3, store.process.kill),
                lambda: channels[1].get(key_of(0), timeout_s=PATIENCE_S),
            ]
            for failed in [pool.submit(call) for call in calls]:
                error = failed.exception(PATIENCE_S)
                assert isinstance(error, ChannelError)
                assert f"the reducing store at {store.url} is lost" in str(error)
        with pytest.raises(ChannelError, match="is lost"):
            channels[0].put(key_of(0), [b"1"])
