"""Which examples belong to (step, rank): every property is one that resuming and rescaling rely on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.errors import ConfigError
from smlt.core.sampler import Cursor, Schedule, share
from smlt.core.task import Indices
from smlt.core.units import Every, parse_every
from tests.support.model_ranks import job_of


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Jobs by epochs or by steps, with one batch size or a few phases of them."""
    examples = draw(st.integers(1, 120))
    starts = sorted({0, *draw(st.lists(st.integers(1, 6), max_size=3))})
    batch = [{"from_epoch": start, "size": draw(st.integers(1, examples))} for start in starts]
    goal = {draw(st.sampled_from(["epochs", "steps"])): draw(st.integers(1, 12))}
    return Schedule.of(job_of(global_batch=batch, **goal), examples)


def order_of(schedule: Schedule, epoch: int) -> Indices:
    return np.random.default_rng(epoch).permutation(schedule.examples)


def batches(schedule: Schedule, cursor: Cursor) -> list[tuple[Cursor, list[int]]]:
    """Every step from a cursor to the end of the job: where it is, and its global batch."""
    found = []
    while not schedule.is_done(cursor):
        found.append((cursor, schedule.batch(order_of(schedule, cursor.epoch), cursor).tolist()))
        cursor = schedule.after(cursor)
    return found


@given(schedules())
def test_the_course_is_as_long_as_it_says(schedule: Schedule) -> None:
    course = batches(schedule, Cursor())
    assert len(course) == schedule.total_steps
    assert [cursor.step for cursor, _ in course] == list(range(schedule.total_steps))


@given(schedules())
def test_each_example_comes_once_an_epoch_in_the_epoch_s_order(schedule: Schedule) -> None:
    course = batches(schedule, Cursor())
    for epoch in range(course[-1][0].epoch + 1):
        visited = [index for cursor, batch in course if cursor.epoch == epoch for index in batch]
        assert visited == order_of(schedule, epoch)[: len(visited)].tolist()
        is_whole = schedule.ends_epoch(next(cursor for cursor, _ in reversed(course) if cursor.epoch == epoch))
        assert (len(visited) == schedule.examples) == is_whole
        assert is_whole or schedule.steps is not None


@given(schedules())
def test_only_the_last_batch_of_an_epoch_is_smaller(schedule: Schedule) -> None:
    for cursor, batch in batches(schedule, Cursor()):
        full = schedule.batch_size(cursor.epoch)
        assert len(batch) == schedule.size_at(cursor) == full or (schedule.ends_epoch(cursor) and 0 < len(batch) < full)


@given(schedules(), st.data())
def test_any_cursor_continues_the_same_sequence(schedule: Schedule, data: st.DataObject) -> None:
    course = batches(schedule, Cursor())
    at = data.draw(st.integers(0, len(course) - 1))
    assert batches(schedule, course[at][0]) == course[at:]


@given(st.lists(st.integers(), max_size=50), st.integers(1, 12))
def test_shares_partition_a_batch_in_order(batch: list[int], world_size: int) -> None:
    indices = np.array(batch, dtype=object)
    shares = [share(indices, rank, world_size) for rank in range(world_size)]
    assert np.concatenate(shares).tolist() == batch
    sizes = [len(piece) for piece in shares]
    assert all(0 <= before - behind <= 1 for before, behind in pairwise(sizes))
    assert max(sizes) - min(sizes) <= 1


def test_batch_sizes_follow_the_epoch() -> None:
    phases = [{"from_epoch": 0, "size": 10}, {"from_epoch": 2, "size": 20}]
    schedule = Schedule.of(job_of(global_batch=phases, epochs=4), 40)
    assert [schedule.batch_size(epoch) for epoch in range(5)] == [10, 10, 20, 20, 20]
    assert schedule.total_steps == 4 + 4 + 2 + 2


def test_one_epoch_where_nothing_is_said() -> None:
    assert Schedule.of(job_of(global_batch=8), 20).total_steps == 3


@pytest.mark.parametrize("batch", [30, [{"from_epoch": 0, "size": 5}, {"from_epoch": 3, "size": 30}]])
@pytest.mark.parametrize(("examples", "allowed"), [(29, 29), (0, 1)])
def test_too_few_examples_are_refused_with_what_would_do(batch: Any, examples: int, allowed: int) -> None:
    with pytest.raises(ConfigError, match=f"{examples} examples, fewer than one global batch of 30") as caught:
        Schedule.of(job_of(global_batch=batch), examples)
    assert f"[job].global_batch to {allowed} or less" in caught.value.hint


def test_a_batch_may_be_all_the_data() -> None:
    assert Schedule.of(job_of(global_batch=30, epochs=2), 30).total_steps == 2


@pytest.mark.parametrize(
    ("every", "due"),
    [
        ("1step", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("4steps", [4, 8]),
        ("1epoch", [3, 6, 9]),
        ("2epochs", [6]),
        ("9epochs", []),
    ],
)
def test_periods_in_steps_and_epochs(every: str, due: list[int]) -> None:
    schedule, period = Schedule.of(job_of(global_batch=8, epochs=3), 20), parse_every(every)
    assert isinstance(period, Every)
    after = [schedule.after(cursor) for cursor, _ in batches(schedule, Cursor())]
    assert [cursor.step for cursor in after if schedule.is_due(period, cursor)] == due
