"""What the reducing store computes, whoever comes first: sums in rank order, bit for bit, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.backends.channels.reducing_store import Store
from smlt.backends.channels.reducing_sums import Part, Sum, Terms, buffers_for
from smlt.core.errors import ChannelError
from tests.support.clocks import FakeClock

PATIENCE_S = 60.0

Array = np.ndarray[Any, Any]


class Line:
    """A connection as a sum sees it."""

    def __init__(self, serial: int = 0) -> None:
        self.serial = serial
        self.is_cut = threading.Event()

    def abort(self) -> None:
        self.is_cut.set()

    def is_lost(self) -> bool:
        return self.is_cut.is_set()


class Rank:
    """One rank's part in a sum of a store; `bring` contributes, `take` receives."""

    def __init__(
        self,
        store: Store,
        values: list[Array],
        rank: int,
        *,
        start: int = 0,
        serial: int = 0,
        key: str = "sum",
        line: Line | None = None,
    ) -> None:
        own = values[rank]
        self.store, self.key, self.data, self.sent = store, key, own.tobytes(), start
        self.line = line or Line(serial)
        self.part = Part(rank, header_of(rank), start, self.line)
        self.when_sent: dict[int, Callable[[], object]] = {}
        terms = Terms(own.dtype.str, own.nbytes, len(values), len(header_of(0)))
        self.sum: Sum = store.join(key, terms, self.part)

    def bring(self, until: int | None = None) -> None:
        """Contribute, up to a byte at which the connection is lost."""

        def fill(room: memoryview) -> None:
            if until is not None and self.sent + room.nbytes > until:
                raise ConnectionResetError
            room[:] = self.data[self.sent : self.sent + room.nbytes]
            self.sent += room.nbytes
            self.when_sent.get(self.sent, lambda: None)()

        try:
            self.sum.contribute(self.part, fill)
        finally:
            self.store.leave(self.key, self.sum, self.part)

    def take(self) -> tuple[bytes, bytes]:
        """The headers, and the sum from `start` on."""
        try:
            headers, *pieces = map(bytes, self.sum.results(self.part))
        finally:
            self.store.leave(self.key, self.sum, self.part)
        return headers, b"".join(pieces)

    def done(self) -> None:
        self.store.done(self.key, self.part.rank)


def header_of(rank: int) -> bytes:
    return b"header %d." % rank


def in_rank_order(values: list[Array]) -> bytes:
    total = values[0].copy()
    with np.errstate(all="ignore"):
        for value in values[1:]:
            total = total + value
    return total.tobytes()


def all_headers(ranks: int) -> bytes:
    return b"".join(map(header_of, range(ranks)))


@st.composite
def contributions(draw: st.DrawFn) -> list[Array]:
    """Of up to nine ranks: numbers of all magnitudes, so that another order would give another sum."""
    ranks, elements = draw(st.integers(1, 9)), draw(st.integers(0, 300))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype is np.int64:
        return [rng.integers(-(2**63), 2**63 - 1, elements) for _ in range(ranks)]
    with np.errstate(over="ignore"):
        return [(rng.standard_normal(elements) * 10.0 ** rng.integers(-50, 50, elements)).astype(dtype)
                for _ in range(ranks)]  # fmt: skip


@given(contributions(), st.sampled_from([8, 16, 72, 512, 1 << 19]), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_each_comes_after_the_other_in_any_order(values: list[Array], chunk_bytes: int, random: Any) -> None:
    store, order = Store(1 << 24, chunk_bytes=chunk_bytes), list(range(len(values)))
    random.shuffle(order)
    ranks = {rank: Rank(store, values, rank) for rank in order}
    for rank in order:
        ranks[rank].bring()  # whole, before the next one comes: what is early is held
    for rank in order:
        assert ranks[rank].take() == (all_headers(len(values)), in_rank_order(values))
        ranks[rank].done()
    assert store.memory.used_bytes == 0


@given(contributions(), st.sampled_from([8, 64, 1 << 19]), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_all_at_once_with_no_more_memory_than_must_be(
    values: list[Array], chunk_bytes: int, chunks_more: int, random: Any
) -> None:
    terms = Terms(values[0].dtype.str, values[0].nbytes, len(values), 0)
    limit = sum(buffers_for(terms, chunk_bytes)) + chunks_more * chunk_bytes
    store, order = Store(limit, chunk_bytes=chunk_bytes), list(range(len(values)))
    random.shuffle(order)
    ranks = [Rank(store, values, rank) for rank in order]
    with ThreadPoolExecutor(2 * len(values)) as pool:
        brought = [pool.submit(rank.bring) for rank in ranks]
        taken = [pool.submit(rank.take) for rank in ranks]
        for each in brought:
            each.result(PATIENCE_S)
        expected = (all_headers(len(values)), in_rank_order(values))
        assert [each.result(PATIENCE_S) for each in taken] == [expected] * len(values)
    assert store.memory.used_bytes <= limit
    for rank in ranks:
        rank.done()
    assert store.memory.used_bytes == 0


def some(ranks: int, elements: int = 100) -> list[Array]:
    rng = np.random.default_rng(ranks)
    return [rng.standard_normal(elements).astype(np.float32) for _ in range(ranks)]


# Flow control


def test_who_is_too_far_ahead_is_not_read_from() -> None:
    values = some(2)
    store = Store(400 + 3 * 40, chunk_bytes=40)  # the sum, a chunk's room for rank 1, and two chunks ahead
    late, early = Rank(store, values, 0), Rank(store, values, 1)
    is_full, seen = threading.Event(), []
    early.when_sent[120] = is_full.set
    late.when_sent[40] = lambda: seen.append(early.sent)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(early.bring)
        assert is_full.wait(PATIENCE_S)
        assert store.memory.used_bytes == store.memory.limit_bytes
        late.bring()
        ahead.result(PATIENCE_S)
    assert seen == [120]
    assert early.take() == late.take() == (all_headers(2), in_rank_order(values))


def test_a_sum_waits_for_the_memory_of_another() -> None:
    values = some(1)
    store = Store(700)
    first = Rank(store, values, 0)
    first.bring()
    first.take()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(Rank, store, values, 0, key="another")
        first.done()
        second = other.result(PATIENCE_S)
    second.bring()
    assert second.take() == (all_headers(1), values[0].tobytes())
    assert store.memory.used_bytes == 400


def test_who_waits_for_memory_in_vain_leaves_when_its_client_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smlt.backends.channels.reducing_store.HANG_UP_S", 0.01)
    store, gone = Store(700), Line()
    Rank(store, some(1), 0)
    gone.abort()
    with pytest.raises(ConnectionAbortedError):
        Rank(store, some(1), 0, key="another", line=gone)


def test_a_sum_larger_than_all_memory_is_refused_at_once() -> None:
    with pytest.raises(ChannelError, match="needs 800 B, the store has 700 B, 0 B of it in use") as caught:
        Rank(Store(700), some(2), 0)
    assert "--memory" in caught.value.hint


def test_a_sum_that_finds_no_room_beside_values_is_refused() -> None:
    store = Store(1000)
    store.values.put("value", store.values.room_for(900), None, b"me")
    with pytest.raises(ChannelError, match="beside values"):
        Rank(store, some(1), 0)


# Ranks that fail


@given(st.integers(2, 4), st.data())
@settings(max_examples=60, deadline=None)
def test_a_contribution_that_broke_off_is_continued(ranks: int, data: st.DataObject) -> None:
    values = some(ranks)
    store = Store(1 << 20, chunk_bytes=40)
    unlucky = data.draw(st.integers(0, ranks - 1))
    until = data.draw(st.integers(0, 400))
    before = [rank for rank in range(ranks) if rank != unlucky and data.draw(st.booleans())]
    parts = [Rank(store, values, rank) for rank in before]
    for part in parts:
        part.bring()
    first = Rank(store, values, unlucky)
    with pytest.raises(ConnectionResetError):
        first.bring(until - 1)
    first.sum.end(first.part)
    with pytest.raises(ConnectionAbortedError):
        first.take()
    parts.append(Rank(store, values, unlucky, serial=1))
    parts[-1].bring()
    for rank in {*range(ranks)} - {*before, unlucky}:
        parts.append(Rank(store, values, rank))
        parts[-1].bring()
    assert [part.take() for part in parts] == [(all_headers(ranks), in_rank_order(values))] * ranks


def test_a_sum_is_taken_up_from_any_byte() -> None:
    values = some(2)
    store = Store(1 << 20, chunk_bytes=40)
    ranks = [Rank(store, values, rank) for rank in range(2)]
    for rank in ranks:
        rank.bring()
    for rank in ranks:
        rank.take()
    for start in (0, 1, 39, 40, 201, 399, 400):
        again = Rank(store, values, 1, start=start, serial=1)
        again.bring()
        assert again.take() == (all_headers(2), in_rank_order(values)[start:])


def test_what_was_never_summed_cannot_be_taken_up() -> None:
    with pytest.raises(ChannelError, match="restarted"):
        Rank(Store(1 << 20), some(2), 0, start=8)


def test_a_later_connection_replaces_an_earlier_one() -> None:
    values = some(2)
    store = Store(1 << 20)
    stuck = Rank(store, values, 1)
    reading = threading.Event()

    def fill(room: memoryview) -> None:
        reading.set()
        assert stuck.line.is_cut.wait(PATIENCE_S)
        raise ConnectionResetError

    def read() -> None:
        try:
            stuck.sum.contribute(stuck.part, fill)
        finally:
            store.leave(stuck.key, stuck.sum, stuck.part)

    with ThreadPoolExecutor(2) as pool:
        reader, writer = pool.submit(read), pool.submit(stuck.take)
        reading.wait(PATIENCE_S)
        later = Rank(store, values, 1, serial=1)
        for thread in (reader, writer):
            assert isinstance(thread.exception(PATIENCE_S), ConnectionError)
    with pytest.raises(ConnectionAbortedError):
        Rank(store, values, 1, serial=0)
    other = Rank(store, values, 0)
    for rank in (later, other):
        rank.bring()
    assert later.take() == other.take() == (all_headers(2), in_rank_order(values))


def test_who_waits_in_vain_leaves_when_its_client_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smlt.backends.channels.reducing_sums.HANG_UP_S", 0.01)
    alone = Rank(Store(1 << 20), some(2), 1)
    alone.bring()
    alone.line.abort()
    with pytest.raises(ConnectionAbortedError):
        alone.take()
    assert not alone.sum.is_attended


@pytest.mark.parametrize(
    "terms", [Terms("<f4", 396, 2, 9), Terms("<f8", 400, 2, 9), Terms("<f4", 400, 3, 9), Terms("<f4", 400, 2, 8)]
)
def test_ranks_that_sum_different_things_are_told_both(terms: Terms) -> None:
    store = Store(1 << 20)
    first = Rank(store, some(2), 0)
    for _ in range(2):
        with pytest.raises(ChannelError) as caught:
            store.join("sum", terms, Part(1, b"h" * terms.header_bytes, 0, Line()))
        assert f"rank 1 {terms}" in str(caught.value)
        assert f"rank 0 {first.sum.terms}" in str(caught.value)
    with pytest.raises(ChannelError, match="different things"):
        first.take()
    first.bring()
    with pytest.raises(ChannelError, match="different things"):
        Rank(store, some(2), 0, serial=1)


def test_another_header_of_the_same_rank_is_refused() -> None:
    alone = Rank(Store(1 << 20), some(1), 0)
    alone.bring()
    alone.take()
    with pytest.raises(ChannelError, match="another header"):
        alone.sum.join(Part(0, b"unlike   ", 0, Line(1)))


def test_what_was_summed_is_not_summed_again() -> None:
    values, store = some(1), Store(1 << 20)
    first = Rank(store, values, 0)
    first.bring()
    first.take()
    first.done()
    with pytest.raises(ChannelError, match="summed already"):
        Rank(store, values, 0)


def test_a_sum_that_nobody_attends_to_is_forgotten() -> None:
    clock = FakeClock()
    store = Store(1 << 20, linger_s=30.0, clock=clock)
    lone = Rank(store, some(2), 0)
    lone.bring()
    lone.sum.end(lone.part)
    with pytest.raises(ConnectionAbortedError):
        lone.take()
    store.sweep()
    clock.advance(29.0)
    store.sweep()
    again = Rank(store, some(2), 0, serial=1)
    store.sweep()
    clock.advance(31.0)
    store.sweep()
    assert store.memory.used_bytes > 0
    again.sum.end(again.part)
    again.bring()
    with pytest.raises(ConnectionAbortedError):
        again.take()
    store.sweep()
    clock.advance(31.0)
    store.sweep()
    assert store.memory.used_bytes == 0
