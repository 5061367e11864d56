"""One rank's machine when rounds change: who takes whose state, what is given up, what is done once more."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from smlt.core import rank_events as events
from smlt.core.errors import ProtocolError
from smlt.core.rank_events import Command, Standing
from smlt.core.sampler import Cursor
from smlt.core.sync.header import Header
from tests.support.model_ranks import ModelRanks, OneRank, job_of

JOB = job_of(steps=9, global_batch=16, eval_every="99epochs", checkpoint_every="99epochs")
BUSY = job_of(
    steps=9, global_batch=16, eval_every="1step", checkpoint_every="1step", keep_best="accuracy"
)  # all that can follow a commit follows each
NOBODY = Standing()
FAST = {"has_private": True, "recovers_fast": True}
IN_THREES = {**FAST, "exchange_every": 3}


def at(step: int) -> Cursor:
    """Where a job with four steps an epoch stands."""
    return Cursor(0, step // 4, step % 4 * 16, step)


def ready(rank: int = 0, **rules: object) -> OneRank:
    """A new process that comes to its first round."""
    return OneRank(JOB, rank, **rules).go(events.Meet)


def survivor(step: int, rank: int = 0, **rules: object) -> OneRank:
    """A rank that has come to another round with the state before this step."""
    one = ready(rank, **rules).go(events.Compute, step)
    assert one.change_round() == Standing(at(step))
    return one


def given(steps: Sequence[int | None], **rules: object) -> list[Command]:
    """What each rank is to do in a round of ranks that stand before these steps, or have no state."""
    ranks = [ready(r, **rules) if step is None else survivor(step, r, **rules) for r, step in enumerate(steps)]
    standings = [one.command.standing for one in ranks if isinstance(one.command, events.Meet)]
    return [one.meet(*standings) for one in ranks]


# Whose state


@pytest.mark.parametrize("rules", [{}, FAST])
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([3], [events.Stay()]),
        ([3, 3], [events.Stay(), events.Stay()]),
        ([None, 3], [events.Fetch(at(3), 1), events.Serve(at(3), 1)]),
        ([3, None, 3], [events.Serve(at(3), 1), events.Fetch(at(3), 0), events.Stay()]),
        ([3, 4, 3], [events.Fetch(at(4), 1), events.Serve(at(4), 2), events.Fetch(at(4), 1)]),
        ([4, 3, 4], [events.Serve(at(4), 1), events.Fetch(at(4), 0), events.Stay()]),
        ([None, 3, None, 4], [events.Fetch(at(4), 3)] * 3 + [events.Serve(at(4), 3)]),
        ([None, 0], [events.Fetch(at(0), 1), events.Serve(at(0), 1)]),
        ([None], [events.Restore()]),
        ([None, None], [events.Restore()] * 2),
    ],
)
def test_the_first_of_those_at_the_highest_commit_gives_its_state(
    steps: list[int | None], expected: list[Command], rules: dict[str, object]
) -> None:
    assert given(steps, **rules) == expected


@pytest.mark.parametrize("steps", [[None, 3], [3, 4, 4], [None, None], [None, 3, None, 4]])
def test_with_private_state_all_go_back_to_the_checkpoint(steps: list[int | None]) -> None:
    assert given(steps, has_private=True) == [events.Restore()] * len(steps)


def test_with_private_state_a_round_without_a_loss_goes_on_where_it_is() -> None:
    assert given([3, 3], has_private=True) == [events.Stay()] * 2


def test_who_went_back_to_the_checkpoint_goes_on_from_there() -> None:
    one = survivor(6, has_private=True)
    one.meet(Standing(at(6)), NOBODY)
    assert one.tell(events.Restored(at(2), 0.5)) == events.Compute(at(2), take_digest=True)
    assert one.change_round() == Standing(at(2), 0.5)


def test_who_is_one_commit_behind_goes_on_where_the_donor_is() -> None:
    one = survivor(3)
    one.meet(Standing(at(3)), Standing(at(4)))
    assert one.tell(events.Fetched()) == events.Compute(at(4), take_digest=True)


@pytest.mark.parametrize("outcome", [events.Served(), events.Stayed()])
def test_who_has_the_state_computes_the_step_in_hand_again(outcome: events.Event) -> None:
    one = survivor(3)
    one.meet(Standing(at(3)), NOBODY if isinstance(outcome, events.Served) else Standing(at(3)))
    assert one.tell(outcome) == events.Compute(at(3), take_digest=True)


def test_a_donor_that_is_lost_while_it_serves_leaves_its_readers_what_they_had() -> None:
    behind, new = survivor(3, 0), ready(2)
    for one, rank in ((behind, 0), (new, 2)):
        assert one.meet(Standing(at(3)), Standing(at(4)), NOBODY) == events.Fetch(at(4), 1), rank
    standings = [behind.change_round(), NOBODY, new.change_round()]
    assert standings == [Standing(at(3)), NOBODY, NOBODY]
    assert behind.meet(*standings) == events.Serve(at(3), 2)
    assert new.meet(*standings) == events.Fetch(at(3), 0)
    assert new.tell(events.Fetched()) == events.Compute(at(3), take_digest=True)


def test_a_state_that_was_taken_over_in_part_is_none() -> None:
    one = survivor(3)
    one.meet(Standing(at(3)), Standing(at(4)))
    assert one.change_round(has_state=False) == NOBODY


def test_a_donor_that_is_asked_twice_serves_twice() -> None:
    donor = survivor(3)
    for _ in range(2):
        assert donor.meet(Standing(at(3)), NOBODY) == events.Serve(at(3), 1)
        assert donor.change_round() == Standing(at(3))


def test_a_checkpoint_that_could_not_be_loaded_to_the_end_is_no_state() -> None:
    one = survivor(3, has_private=True)
    one.meet(Standing(at(3)), NOBODY)
    assert one.change_round() == NOBODY


# Without PRIVATE state: all go back to the last exchange


def fast_survivor(step: int, exchange: int, rank: int = 0) -> OneRank:
    """One of a period of three steps that has come to another round from before `step`, exchanged before `exchange`."""
    one = ready(rank, **IN_THREES).go(events.Compute, step)
    assert one.change_round() == Standing(at(exchange))
    return one


def test_survivors_within_a_period_go_back_to_where_it_began() -> None:
    ranks = [fast_survivor(step, 3, rank) for rank, step in enumerate([3, 4, 5])]
    for one in ranks:
        assert one.meet(*[Standing(at(3))] * 3) == events.Stay()
        assert one.tell(events.Stayed()) == events.Compute(at(3), take_digest=False)
        assert one.go(events.Exchange).course() == ["compute 3", "commit 3", "compute 4", "commit 4", "compute 5"]


def test_a_survivor_who_has_not_seen_the_last_exchange_begins_anew_there() -> None:
    behind, ahead = fast_survivor(5, 3, 0), fast_survivor(7, 6, 1)
    standings = [Standing(at(3)), Standing(at(6))]
    assert ahead.meet(*standings) == events.Serve(at(6), 1)
    assert behind.meet(*standings) == events.Fetch(at(6), 1)
    for one, outcome in ((ahead, events.Served()), (behind, events.Fetched())):
        assert one.tell(outcome) == events.Compute(at(6), take_digest=False)
        assert one.change_round() == standings[1]


def test_two_that_are_lost_begin_anew_with_the_state_of_the_third() -> None:
    third = fast_survivor(5, 3, 1)
    first, second = ready(0, **IN_THREES), ready(2, **IN_THREES)
    standings = [NOBODY, Standing(at(3)), NOBODY]
    assert third.meet(*standings) == events.Serve(at(3), 2)
    for one in (first, second):
        assert one.meet(*standings) == events.Fetch(at(3), 1)


def test_a_donor_that_is_lost_as_it_serves_leaves_those_behind_their_own_exchange() -> None:
    behind, new = fast_survivor(5, 3, 0), ready(2, **IN_THREES)
    for one in (behind, new):
        assert one.meet(Standing(at(3)), Standing(at(6)), NOBODY) == events.Fetch(at(6), 1)
    standings = [behind.change_round(), NOBODY, new.change_round()]
    assert standings == [Standing(at(3)), NOBODY, NOBODY]
    assert behind.meet(*standings) == events.Serve(at(3), 2)
    assert new.meet(*standings) == events.Fetch(at(3), 0)


@pytest.mark.parametrize("until", [events.Evaluate, events.KeepBest, events.Compute])
def test_an_evaluation_between_two_exchanges_is_made_again_by_all_and_the_best_model_kept(until: type[Command]) -> None:
    """Rank 0 was lost as it wrote the model; the others may have gone on beside it."""
    job = job_of(steps=9, global_batch=16, eval_every="4steps", checkpoint_every="99epochs", keep_best="accuracy")
    survived, new = (OneRank(job, rank, **IN_THREES).go(events.Meet) for rank in (1, 0))
    for one in (survived, new):
        one.metrics = lambda step: {"accuracy": float(step)}
    standing = survived.go(until, 4).change_round()
    assert standing == Standing(at(3))
    for one in (survived, new):
        one.meet(NOBODY, standing)
        assert one.go(events.Exchange).course()[1:5] == ["compute 3", "commit 3", "evaluate 4", "keepbest 4"]


def test_what_the_exchange_has_agreed_on_and_the_best_before_it_go_with_the_new_one() -> None:
    job = job_of(steps=9, global_batch=16, eval_every="1step", checkpoint_every="99epochs", keep_best="accuracy")
    survived, new = (OneRank(job, rank, **IN_THREES).go(events.Meet) for rank in (1, 0))
    survived.metrics = new.metrics = lambda step: {"accuracy": float(step)}
    survived.said[5] = Header(5, save=6)
    standing = survived.go(events.Compute, 8).change_round()
    assert standing == Standing(at(6), best=5.0, save=6)
    for one in (survived, new):
        one.meet(NOBODY, standing)
        assert one.go(events.Compute).course()[1:] == ["evaluate 6", "keepbest 6", "save 6", "compute 6"]


# What is given up


def busy(rank: int = 0) -> OneRank:
    """Evaluates, has a better model and saves at every step."""
    one = OneRank(BUSY, rank)
    one.metrics = lambda step: {"accuracy": float(step)}
    return one.go(events.Meet)


@pytest.mark.parametrize(
    ("until", "step", "here"),
    [
        (events.Meet, None, None),
        (events.Restore, None, None),
        (events.Compute, 0, 0),
        (events.Compute, 2, 2),
        (events.Exchange, 2, 2),
        (events.Commit, 2, 2),
        (events.Evaluate, 3, 3),
        (events.KeepBest, 3, 3),
        (events.Save, 3, 3),
        (events.Export, 9, 9),
        (events.Leave, 9, 9),
    ],
)
def test_another_round_may_come_at_any_command_and_what_follows_the_last_commit_is_done_once_more(
    until: type[Command], step: int | None, here: int | None
) -> None:
    undisturbed = busy().go(events.Leave).course()
    one = busy().go(until, step)
    standing = one.change_round()
    if here is None:
        assert standing == NOBODY
    else:  # the best model's value is that before the evaluation, which comes again
        assert standing == Standing(at(here), best=here - 1.0 if here else None, save=here)
    one.meet(standing, standing)
    again = [entry for entry in undisturbed if int(entry.split()[1]) >= (here or 0)]
    assert one.go(events.Leave).course() == again


@pytest.mark.parametrize("until", [events.Serve, events.Stay, events.Fetch])
def test_another_round_may_come_while_a_state_is_handed_over(until: type[Command]) -> None:
    standings = {
        events.Serve: [Standing(at(3)), NOBODY],
        events.Stay: [Standing(at(3)), Standing(at(3))],
        events.Fetch: [Standing(at(3)), Standing(at(4))],
    }
    one = survivor(3)
    assert type(one.meet(*standings[until])) is until
    assert one.change_round() == Standing(at(3))


@pytest.mark.parametrize("until", [events.Claim, events.Build, events.AwaitRound])
def test_before_its_first_round_a_change_is_no_news(until: type[Command]) -> None:
    one = OneRank(JOB).go(until)
    with pytest.raises(ProtocolError, match="cannot take RoundChanged"):
        one.tell(events.RoundChanged())


def test_between_two_rounds_a_change_is_no_news() -> None:
    one = ready().go(events.Compute, 2)
    one.tell(events.RoundChanged())
    for outcome in (events.Forgotten(), events.RoundOpened()):
        with pytest.raises(ProtocolError, match="cannot take RoundChanged"):
            one.tell(events.RoundChanged())
        one.tell(outcome)


def test_a_round_may_change_before_anything_is_done_in_it_as_often_as_it_likes() -> None:
    one = ready().go(events.Compute, 2)
    for _ in range(3):
        assert one.change_round() == Standing(at(2))
    one.meet(Standing(at(2)), Standing(at(2)))
    assert one.change_round() == Standing(at(2))
    one.meet(Standing(at(2)), Standing(at(2)))
    assert one.go(events.Leave).course()[-1] == "leave 9 goal"


def test_who_lost_its_claim_is_in_no_round() -> None:
    one = OneRank(JOB)
    one.tell(events.Claimed(won=False))
    with pytest.raises(ProtocolError):
        one.tell(events.RoundChanged())


# What was said


def test_an_end_that_was_committed_stands_for_survivor_and_replacement() -> None:
    survived, new = ready(1), ready(0)
    survived.said[3] = Header(3, end=4, save=4)
    standing = survived.go(events.Save, 4).change_round()
    assert standing == Standing(at(4), end=4, save=4)
    for one in (survived, new):
        one.meet(NOBODY, standing)
        assert one.go(events.Leave).course()[1:] == ["save 4", "leave 4 ended"]


def test_a_checkpoint_that_was_committed_is_written_by_survivor_and_replacement() -> None:
    survived, new = ready(1), ready(0)
    survived.said[3] = Header(3, save=4)
    standing = survived.go(events.Save, 4).change_round()
    assert standing == Standing(at(4), save=4)
    for one in (survived, new):
        one.meet(NOBODY, standing)
        assert one.go(events.Commit).course()[1:] == ["save 4", "compute 4", "commit 4"]


def test_what_was_said_in_a_step_that_nobody_committed_is_forgotten() -> None:
    one = ready(1)
    one.said[3] = Header(3, end=4, save=4)
    assert one.go(events.Commit, 3).change_round() == Standing(at(3))
    one.said.clear()
    one.meet(NOBODY, Standing(at(3)))
    assert one.go(events.Leave).course()[-3:] == ["save 9", "export 9", "leave 9 goal"]


def test_a_wish_that_was_not_committed_is_voiced_again_by_rank_0_s_replacement() -> None:
    new = ready()
    new.meet(NOBODY, Standing(at(3)))
    new.go(events.Compute)
    exchange = new.tell(events.Computed(0.0, 1.0, 0, 0.0, wished=True))
    assert isinstance(exchange, events.Exchange)
    assert (exchange.header.step, exchange.header.end, exchange.header.save) == (3, 4, 4)


def test_a_checkpoint_that_is_due_between_exchanges_is_not_forgotten_with_the_round() -> None:
    one = OneRank(job_of(steps=20, checkpoint_every="3steps", eval_every="99epochs"), exchange_every=5)
    standing = one.go(events.Compute, 4).change_round()
    one.meet(standing, standing)
    exchange = one.go(events.Exchange).command
    assert isinstance(exchange, events.Exchange)
    assert exchange.header.save == 5


def test_a_checkpoint_that_was_due_since_the_exchange_that_all_go_back_to_is_due_again() -> None:
    one = OneRank(
        job_of(steps=20, checkpoint_every="3steps", eval_every="99epochs"), **{**IN_THREES, "exchange_every": 5}
    )
    standing = one.go(events.Compute, 4).change_round()
    assert standing == Standing(Cursor())
    one.meet(standing, NOBODY)
    exchange = one.go(events.Exchange).command
    assert isinstance(exchange, events.Exchange)
    assert exchange.header.save == 5


@pytest.mark.parametrize("eval_every", ["1step", "99epochs"])
def test_a_target_that_the_checkpoint_had_reached_is_not_trained_past_after_a_loss(eval_every: str) -> None:
    job = job_of(epochs=5, target={"metric": "accuracy", "at_least": 0.9}, eval_every=eval_every)
    cursor = Cursor(epoch=1, step=10)
    survived, new = (OneRank(job, rank).go(events.Meet) for rank in (0, 1))
    survived.meet(NOBODY, NOBODY)
    assert survived.tell(events.Restored(cursor, goal="target")) == events.Export(cursor, "target")
    standing = survived.change_round()
    for one in (survived, new):
        one.metrics = lambda step: {"accuracy": 0.95}
        one.meet(standing, NOBODY)
        assert one.go(events.Leave).course()[-2:] == ["export 10", "leave 10 target"]


def test_a_target_that_is_no_longer_reached_further_on_is_forgotten() -> None:
    """It was that of the commit that was lost."""
    job = job_of(steps=9, target={"metric": "accuracy", "at_least": 0.9}, eval_every="3steps")
    one = OneRank(job).go(events.Meet)
    one.metrics = lambda step: {"accuracy": 0.95 if step == 3 else 0.0}
    standing = one.go(events.Save, 3).change_round()
    one.metrics = lambda step: {"accuracy": 0.0}
    one.meet(standing, NOBODY)
    assert one.go(events.Leave).course()[-1] == "leave 9 goal"


# The best model


@pytest.mark.parametrize("until", [events.Evaluate, events.KeepBest, events.Save])
def test_the_best_model_is_kept_once_more_by_survivor_and_replacement(until: type[Command]) -> None:
    survived, new = busy(1), busy(0)
    survived.said = {step: Header(step, save=step + 1) for step in range(9)}
    standing = survived.go(until, 3).change_round()
    assert standing.best == 2.0
    for one in (survived, new):
        one.meet(NOBODY, standing)
        assert one.go(events.Compute).course()[1:3] == ["evaluate 3", "keepbest 3"]


def test_a_model_that_was_no_better_is_not_kept_after_a_loss() -> None:
    one = busy()
    one.metrics = lambda step: {"accuracy": -float(step)}
    standing = one.go(events.Save, 3).change_round()
    assert standing.best == -1.0
    one.meet(standing, NOBODY)
    assert one.go(events.Compute).course()[1:] == ["evaluate 3", "save 3", "compute 3"]


# Comparing states


def compared(one: OneRank) -> list[int]:
    """At which steps of the round that is open the state is compared."""
    one.go(events.Leave)
    last = max(number for number, command in enumerate(one.commands) if isinstance(command, events.Meet))
    computed = [command for command in one.commands[last:] if isinstance(command, events.Compute)]
    return [command.cursor.step for command in computed if command.take_digest]


@pytest.mark.parametrize(
    ("exchange_every", "first_round", "begin", "second_round"),
    [
        (1, [0, 50, 100], 7, [7, 50, 100]),
        (1, [0, 50, 100], 50, [50, 100]),
        (20, [19, 59, 99], 25, [39, 59, 99]),
        (30, [29, 59, 89, 119], 35, [59, 89, 119]),
        (30, [29, 59, 89, 119], 29, [29, 59, 89, 119]),
        (80, [79, 119], 100, [119]),
    ],
)
def test_states_are_compared_at_the_first_exchange_of_a_round_and_at_some_later_ones(
    exchange_every: int, first_round: list[int], begin: int, second_round: list[int]
) -> None:
    job = job_of(steps=120, eval_every="99epochs", checkpoint_every="99epochs")
    assert compared(OneRank(job, exchange_every=exchange_every)) == first_round
    survived = OneRank(job, exchange_every=exchange_every).go(events.Compute, begin)
    standing = survived.change_round()
    survived.meet(standing, standing)
    assert compared(survived) == second_round


def test_states_are_not_compared_where_nothing_is_exchanged() -> None:
    ranks = ModelRanks(job_of(steps=70, eval_every="99epochs"), exchange_every=30).run()
    computed = [command for command in ranks.commands[1] if isinstance(command, events.Compute)]
    exchanged = [command.header for command in ranks.commands[1] if isinstance(command, events.Exchange)]
    assert [command.cursor.step for command in computed if command.take_digest] == [29, 59, 69]
    assert [(header.step, header.digest > 0) for header in exchanged] == [(29, True), (59, True), (69, True)]
