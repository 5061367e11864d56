"""One rank's machine, driven by ranks in memory: what all do together, in order."""

from __future__ import annotations

import pytest

from smlt.core import rank_events as events
from smlt.core.protocol import RankProtocol, Rules
from smlt.core.sampler import Cursor
from tests.support.model_ranks import ModelRanks, OneRank, job_of


def test_an_epoch_from_the_claim_to_the_last_word() -> None:
    ranks = ModelRanks(job_of(epochs=1, global_batch=32)).run()
    assert [type(command) for command in ranks.commands[0][:5]] == [
        events.Claim,
        events.Build,
        events.AwaitRound,
        events.Meet,
        events.Restore,
    ]
    assert ranks.course() == [
        "compute 0", "commit 0", "compute 1", "commit 1", "evaluate 2", "save 2", "export 2", "leave 2 goal",
    ]  # fmt: skip


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_all_ranks_take_the_same_course(world_size: int) -> None:
    ranks = ModelRanks(job_of(epochs=3, global_batch=20), world_size=world_size).run()
    assert all(ranks.course(rank) == ranks.course() for rank in range(world_size))


def test_the_commit_carries_the_loss_of_all_ranks() -> None:
    ranks = ModelRanks(job_of(steps=1), world_size=4).run()
    merged = [command.merged for command in ranks.commands[3] if isinstance(command, events.Commit)]
    assert [(header.loss_sum, header.weight) for header in merged] == [(6.0, 4.0)]


def test_who_loses_the_claim_leaves_at_once() -> None:
    rank = RankProtocol(1, Rules(job_of()))
    assert rank.next(events.Begun()) == events.Claim()
    assert rank.next(events.Claimed(won=False)) == events.Leave("claim_lost")


def test_a_wish_ends_all_ranks_at_the_step_after_the_one_that_voiced_it() -> None:
    ranks = ModelRanks(job_of(steps=100, eval_every="99epochs"), world_size=3, wishes={0: 7}).run()
    for rank in range(3):
        assert ranks.course(rank)[-3:] == ["commit 7", "save 8", "leave 8 ended"]


def test_with_exchanges_now_and_then_all_is_said_at_one_and_the_last_step_has_one() -> None:
    job = job_of(steps=11, eval_every="4steps", checkpoint_every="5steps")
    ranks = ModelRanks(job, world_size=3, exchange_every=5).run()
    exchanged = [command for command in ranks.commands[1] if isinstance(command, events.Exchange)]
    assert [(command.header.step, command.last) for command in exchanged] == [(4, False), (9, False), (10, True)]
    assert ranks.steps("commit") == list(range(11))
    assert ranks.steps("save") == [5, 10, 11]
    assert ranks.steps("evaluate") == [4, 8, 11]


def test_with_exchanges_now_and_then_a_wish_waits_for_one() -> None:
    job = job_of(steps=100, eval_every="99epochs")
    ranks = ModelRanks(job, world_size=2, exchange_every=5, wishes={0: 6}).run()
    for rank in range(2):
        assert ranks.course(rank)[-3:] == ["commit 9", "save 10", "leave 10 ended"]


def test_only_rank_0_voices_a_wish() -> None:
    ranks = ModelRanks(job_of(steps=5), world_size=3, wishes={1: 0, 2: 1}).run()
    assert ranks.steps("commit") == [0, 1, 2, 3, 4]
    assert ranks.last.reason == "goal"


def test_a_wish_at_the_last_step_is_the_goal() -> None:
    ranks = ModelRanks(job_of(steps=5), wishes={0: 4}).run()
    assert ranks.course()[-4:] == ["evaluate 5", "save 5", "export 5", "leave 5 goal"]


def test_a_wish_meets_an_evaluation() -> None:
    ranks = ModelRanks(job_of(epochs=9, global_batch=32), wishes={0: 1}).run()
    assert ranks.course()[-4:] == ["commit 1", "evaluate 2", "save 2", "leave 2 ended"]


def test_a_target_saves_exports_and_leaves() -> None:
    job = job_of(epochs=9, global_batch=32, target={"metric": "loss", "at_most": 0.15})
    ranks = ModelRanks(job, metrics=lambda step: {"loss": 1 / step}).run()
    assert ranks.steps("evaluate") == [2, 4, 6, 8]
    assert ranks.course()[-3:] == ["save 8", "export 8", "leave 8 target"]
    assert ranks.steps("export") == [8]


def test_evaluation_comes_at_its_period_and_at_the_end() -> None:
    assert ModelRanks(job_of(steps=7, eval_every="3steps")).run().steps("evaluate") == [3, 6, 7]
    every_second = job_of(epochs=5, global_batch=32, eval_every="2epochs")
    assert ModelRanks(every_second).run().steps("evaluate") == [4, 8, 10]


def test_checkpoints_every_so_many_steps_or_epochs() -> None:
    assert ModelRanks(job_of(steps=7, checkpoint_every="3steps")).run().steps("save") == [3, 6, 7]
    every_second = job_of(epochs=5, global_batch=32, checkpoint_every="2epochs")
    assert ModelRanks(every_second).run().steps("save") == [4, 8, 10]


def test_checkpoints_by_the_clock_are_by_rank_0_s() -> None:
    ranks = ModelRanks(job_of(steps=20), world_size=3, step_s=3.0, save_interval_s=15.0).run()
    assert ranks.steps("save", rank=2) == [6, 11, 16, 20]


def test_a_clock_may_start_at_zero() -> None:
    rank = OneRank(job_of(steps=10, eval_every="99epochs"))
    announced = []
    for now in (0.0, 4.0, 5.0):
        rank.go(events.Compute)
        exchange = rank.tell(events.Computed(0.0, 1.0, 0, now, wished=False, save_interval_s=5.0))
        assert isinstance(exchange, events.Exchange)
        announced.append(exchange.header.save)
    assert announced == [0, 0, 3]


def test_a_target_that_was_reached_before_a_crash_is_not_trained_past() -> None:
    job = job_of(epochs=5, target={"metric": "accuracy", "at_least": 0.9})
    ranks = ModelRanks(job, cursor=Cursor(epoch=1, step=10), goal="target").run()
    assert ranks.course() == ["export 10", "leave 10 target"]


def test_a_target_that_is_no_longer_asked_for_is_trained_past() -> None:
    ranks = ModelRanks(job_of(steps=12), cursor=Cursor(epoch=1, step=10), goal="target").run()
    assert ranks.steps("commit") == [10, 11]
