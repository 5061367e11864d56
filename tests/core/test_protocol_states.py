"""One rank's machine: the best model, where it goes on from, and what it does not take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core import rank_events as events
from smlt.core.errors import ProtocolError
from smlt.core.protocol import RankProtocol, Rules
from smlt.core.rank_events import Event, Standing
from smlt.core.sampler import Cursor, Schedule
from smlt.core.sync.header import Header
from tests.support.model_ranks import ModelRanks, job_of

VALUES = [0.5, 0.7, 0.6, 0.4, 0.8]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"keep_best": "accuracy"}, [1, 2, 5]),
        ({"keep_best": "val_loss"}, [1, 4]),
        ({"keep_best": "accuracy", "target": {"metric": "accuracy", "at_most": 0.0}}, [1, 4]),
        ({"keep_best": "val_loss", "target": {"metric": "val_loss", "at_least": 1.0}}, [1, 2, 5]),
        ({"keep_best": "unknown"}, []),
        ({}, []),
    ],
)
def test_the_best_model_is_kept_in_the_metric_s_own_direction(fields: dict[str, Any], kept: list[int]) -> None:
    job = job_of(steps=5, eval_every="1step", **fields)
    ranks = ModelRanks(job, metrics=lambda step: dict.fromkeys(("accuracy", "val_loss"), VALUES[step - 1])).run()
    assert ranks.steps("keepbest") == kept


def test_the_best_value_travels_in_checkpoints() -> None:
    job = job_of(steps=3, eval_every="1step", checkpoint_every="1step", keep_best="accuracy")
    ranks = ModelRanks(job, metrics=lambda step: {"accuracy": VALUES[step - 1]}).run()
    saves = [command for command in ranks.commands[0] if isinstance(command, events.Save)]
    assert [(save.cursor.step, save.best) for save in saves] == [(1, 0.5), (2, 0.7), (3, 0.7)]


def test_a_resumed_rank_keeps_only_what_is_better_than_before() -> None:
    job = job_of(steps=5, eval_every="1step", keep_best="accuracy")
    ranks = ModelRanks(job, cursor=Cursor(step=2), best=0.7, metrics=lambda step: {"accuracy": VALUES[step - 1]}).run()
    assert ranks.steps("keepbest") == [5]


def test_a_resumed_rank_goes_on_at_its_cursor() -> None:
    cursor = Cursor(epoch=1, consumed=32, step=3)
    ranks = ModelRanks(job_of(epochs=3, global_batch=32), cursor=cursor).run()
    first = next(command for command in ranks.commands[0] if isinstance(command, events.Compute))
    assert first.cursor == cursor
    assert ranks.steps("commit") == [3, 4, 5]
    assert ranks.steps("evaluate") == [4, 6]


@pytest.mark.parametrize("step", [4, 9])
def test_what_is_done_already_is_exported_and_left(step: int) -> None:
    ranks = ModelRanks(job_of(steps=4), cursor=Cursor(step=step)).run()
    assert ranks.course() == [f"export {step}", f"leave {step} goal"]


def test_the_state_is_compared_from_time_to_time() -> None:
    ranks = ModelRanks(job_of(steps=120)).run()
    digests = [command.header.digest for command in ranks.commands[1] if isinstance(command, events.Exchange)]
    assert [step for step, digest in enumerate(digests) if digest] == [0, 50, 100]


EVENTS: list[Event] = [
    events.Begun(),
    events.Claimed(won=True),
    events.Built(Schedule.of(job_of(steps=5), 64)),
    events.RoundOpened(),
    events.Met([Standing()]),
    events.Restored(Cursor()),
    events.Computed(1.0, 1.0, 0, 0.0, wished=False),
    events.Exchanged(Header(0)),
    events.Committed(0.0),
    events.Evaluated({}),
    events.BestKept(),
    events.Saved(0.0),
    events.Exported(),
]


@pytest.mark.parametrize("taken", range(9))
def test_an_event_out_of_turn_is_refused_and_changes_nothing(taken: int) -> None:
    for stranger in EVENTS[:taken] + EVENTS[taken + 1 :]:
        rank = RankProtocol(0, Rules(job_of(steps=5)))
        for event in EVENTS[:taken]:
            rank.next(event)
        with pytest.raises(ProtocolError, match="rank 0 cannot take"):
            rank.next(stranger)
        rank.next(EVENTS[taken])


def test_nothing_comes_after_the_last_word() -> None:
    rank = RankProtocol(0, Rules(job_of()))
    rank.next(events.Begun())
    rank.next(events.Claimed(won=False))
    for event in EVENTS:
        with pytest.raises(ProtocolError):
            rank.next(event)


@given(
    world_size=st.integers(1, 6),
    examples=st.integers(8, 60),
    batch=st.integers(1, 8),
    epochs=st.integers(1, 4),
    wishes=st.dictionaries(st.integers(0, 5), st.integers(0, 80)),
    step_s=st.floats(0.0, 20.0),
    checkpoint_every=st.sampled_from(["auto", "1epoch", "5steps", "1step"]),
    eval_every=st.sampled_from(["1epoch", "3steps", "2epochs"]),
)
def test_any_generation_commits_the_same_steps_on_all_ranks_and_ends_saved(
    world_size: int,
    examples: int,
    batch: int,
    epochs: int,
    wishes: dict[int, int],
    step_s: float,
    checkpoint_every: str,
    eval_every: str,
) -> None:
    job = job_of(epochs=epochs, global_batch=batch, checkpoint_every=checkpoint_every, eval_every=eval_every)
    ranks = ModelRanks(job, examples, world_size, wishes, step_s=step_s).run()
    total = Schedule.of(job, examples).total_steps
    end = min(total, wishes.get(0, total) + 1)
    for rank in range(world_size):
        assert ranks.course(rank) == ranks.course()
    assert ranks.steps("commit") == list(range(end))
    assert ranks.last == events.Leave("goal" if end == total else "ended", ranks.last.cursor)
    assert ranks.steps("save")[-1] == end
    assert len(set(ranks.steps("save"))) == len(ranks.steps("save"))
    assert ranks.steps("export") == ([total] if end == total else [])


@given(examples=st.integers(8, 40), batch=st.integers(1, 8), epochs=st.integers(1, 3), data=st.data())
def test_generations_in_a_row_compute_what_one_would(
    examples: int, batch: int, epochs: int, data: st.DataObject
) -> None:
    job = job_of(epochs=epochs, global_batch=batch)
    whole = ModelRanks(job, examples, 1).run()
    pieces: list[str] = []
    cursor, reason = Cursor(), "ended"
    while reason == "ended":
        wish = data.draw(st.integers(cursor.step, cursor.step + 10))
        ranks = ModelRanks(job, examples, data.draw(st.integers(1, 4)), {0: wish}, cursor=cursor).run()
        pieces += [entry for entry in ranks.course() if entry.split()[0] in ("compute", "evaluate", "export")]
        assert ranks.last.cursor is not None
        cursor, reason = ranks.last.cursor, ranks.last.reason
    assert pieces == [entry for entry in whole.course() if entry.split()[0] in ("compute", "evaluate", "export")]
