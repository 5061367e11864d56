"""What a process does for each command of its rank's machine, as `smlt.core.function.FunctionWorker` does it.

Each function takes the process. It returns the outcome where that is there at once, and None where it comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from smlt.core import rank_events as events
from smlt.core.errors import StorageError
from smlt.core.function import BACK_OFF_S, LONGEST_BACK_OFF_S
from smlt.core.messages import Evaluation, Left, Ready
from smlt.core.sampler import Cursor
from smlt.core.sync.header import Header, merge
from smlt.simulator.saver import error_of
from smlt.simulator.store import PATIENCE_S, Kept

if TYPE_CHECKING:
    from smlt.simulator.channel import Gathering
    from smlt.simulator.process import Process

LOST = -1
"""The state of a rank that has none."""


def _request(me: Process, seconds: float, receive: Callable[..., None], *args: Any) -> None:
    """Do something in the store; who waits in vain for too long fails."""
    if seconds > PATIENCE_S:
        me.later(PATIENCE_S, _denied)
    else:
        me.later(seconds, receive, *args)


def _denied(me: Process) -> None:
    me.fail(StorageError("the store does not answer"))


def _gather(me: Process, step: int, piece: str, value: Any, receive: Callable[..., None]) -> None:
    """A value of each rank, from within something that takes time."""
    if me.workers == 1:
        receive(me, [value])
    else:
        me.attempt(type(me).give, step, piece, value, _gathered, receive)


def _gathered(me: Process, gathering: Gathering, receive: Callable[..., None]) -> None:
    receive(me, gathering.values)


# To the first round


def claim(me: Process, command: events.Claim) -> None:
    """Become the one process of this incarnation."""
    seconds, lease_s = me.world.store.request_s(), me.world.lease_s
    if not me.reached("claim"):
        if seconds > lease_s:  # it has heard of no controller all the time
            me.later(lease_s, type(me).exit, "no controller")
        else:
            me.later(seconds, _claimed)


def _claimed(me: Process) -> None:
    me.has_claimed = me.world.store.claim(me.address, me.uuid)
    if me.has_claimed:
        me.world.listen(me)
    me.advance(events.Claimed(me.has_claimed))


def build(me: Process, command: events.Build) -> None:
    """Build the task."""
    me.doing("building")
    if me.is_short_of_memory:
        me.run_out_of_memory()
    elif not me.reached("build"):
        me.later(me.draw(me.world.times(me).build_s), _built)


def _built(me: Process) -> None:
    me.advance(events.Built(me.world.schedule))


def await_round(me: Process, command: events.AwaitRound) -> events.Event | None:
    """Say READY, and wait for a round."""
    me.doing("ready")
    if me.reached("ready"):
        return None
    if me.round is None or me.needs_round:
        if me.troubles:
            me.later(min(BACK_OFF_S * 2**me.troubles, LONGEST_BACK_OFF_S), _ask_again)
            return None
        _say_ready(me)
    me.is_waiting = True
    return me.wait_for_round()


def _ask_again(me: Process) -> None:
    _say_ready(me)
    me.is_waiting = True
    me.heed()


def _say_ready(me: Process) -> None:
    world = me.world
    after = -1 if me.round is None else me.round.number
    me.courier.ready = Ready(me.uuid, world.shape, world.schedule.total_steps, after)
    if not world.store.fails_now:
        me.courier.send()


# A round begins


def meet(me: Process, command: events.Meet) -> events.Event | None:
    """Join the round, and meet the others."""
    opened = me.round
    assert opened is not None
    me.joined = (opened.generation, opened.number)
    me.channel_life = me.world.channel.life
    if me.reached("meet"):
        return None
    if me.workers == 1:
        me.world.invariants.met(me, [command.standing])
        return events.Met([command.standing])
    me.give(0, "hello", command.standing, _met)
    return None


def _met(me: Process, gathering: Gathering) -> None:
    me.world.invariants.met(me, gathering.values)
    if gathering.result is None:
        gathering.result = events.Met(gathering.values)
    me.advance(gathering.result)


def restore(me: Process, command: events.Restore) -> None:
    """Take over the newest checkpoint that all ranks can read, from the one that the round names back."""
    me.doing("loading")
    if me.reached("restore"):
        return
    me.world.invariants.going_back(me)
    seconds = 0.0 if me.is_fresh else me.draw(me.world.times(me).build_s)
    me.in_hand, me.state, me.private, me.is_fresh = None, LOST, LOST, True
    me.later(seconds, _read, me.round.resume_from if me.round else "", 0)


def _read(me: Process, key: str, number: int) -> None:
    world = me.world
    if key:
        seconds = world.store.request_s() + me.draw(world.times(me).load_s)
        _request(me, seconds, _look_at, key, number)
        return
    me.state, me.private, me.step = me.exchanged = world.expected[0], 0, 0
    if me.rank == 0:
        me.saver.passed_over = frozenset(world.store.checkpoints)
    me.advance(events.Restored(Cursor()))


def _look_at(me: Process, key: str, number: int) -> None:
    store = me.world.store
    kept = store.read(int(key), me.rank)
    before = store.newest(int(key)) if me.rank == 0 else ""

    own = (kept is not None, before)
    if me.workers == 1:
        _agreed(me, own, kept, number)
    else:
        me.attempt(type(me).give, 0, f"whole.{number}", own, _answered, kept, number)


def _answered(me: Process, gathering: Gathering, kept: Kept | None, number: int) -> None:
    if gathering.result is None:
        gathering.result = all(is_whole for is_whole, _ in gathering.values), gathering.values[0][1]
    _agreed(me, gathering.result, kept, number)


def _agreed(me: Process, answer: tuple[bool, str], kept: Kept | None, number: int) -> None:
    """Whether all can read this checkpoint, and which one comes before it."""
    me.is_waiting = False
    is_whole, before = answer
    if is_whole and kept:
        _take_over(me, kept)
    else:
        _read(me, before, number + 1)


def _take_over(me: Process, kept: Kept) -> None:
    me.is_fresh = False
    me.state, me.private, me.step = me.exchanged = kept.state, kept.cursor.step, kept.cursor.step
    if me.rank == 0:
        me.saver.passed_over = frozenset(step for step in me.world.store.checkpoints if step > me.step)
    me.advance(events.Restored(kept.cursor, kept.best, kept.goal))


def fetch(me: Process, command: events.Fetch) -> None:
    """Take over the donor's state."""
    me.doing("loading")
    if me.reached("fetch"):
        return
    if me.is_broken():
        me.trouble()
    me.is_waiting, me.piece = True, ""
    me.be_patient()
    if me.joined:
        me.world.channel.fetch(me, me.joined, command.donor, command.cursor.step, _fetched)


def _fetched(me: Process, state: int) -> None:
    me.is_between_states = True
    me.later(me.draw(me.world.times(me).load_s), _loaded, state)


def _loaded(me: Process, state: int) -> None:
    command = me.command
    assert isinstance(command, events.Fetch)
    me.world.invariants.taking_over(me, command.cursor)
    me.is_fresh = me.is_between_states = False
    step = command.cursor.step
    private = step if me.world.rules.recovers_fast else LOST  # begun anew, where all others have come, too
    me.state, me.private, me.step = me.exchanged = state, private, step
    me.in_hand = None
    me.advance(events.Fetched())


def serve(me: Process, command: events.Serve) -> None:
    """Serve the state."""
    me.doing("serving")
    if not me.reached("serve"):
        me.later(me.draw(me.world.times(me).load_s), _served, command)


def _served(me: Process, command: events.Serve) -> None:
    if me.is_broken():
        me.broken()
        return
    if me.joined:
        me.world.channel.serve(me.joined, me.rank, command.cursor.step, me.state)
    me.advance(events.Served())


def stay(me: Process, command: events.Stay) -> events.Event:
    """Go on with the state that is here."""
    return events.Stayed()


def forget(me: Process, command: events.Forget) -> events.Event:
    """Give up the step in hand, and leave the round."""
    me.in_hand = None
    me.joined = None
    me.saver.give_up()
    has_state, me.is_between_states = not me.is_between_states, False
    if not has_state:
        me.state = me.private = LOST
    elif me.world.rules.recovers_fast and me.state != LOST:
        me.state, me.private, me.step = me.exchanged
    return events.Forgotten(has_state)


# A step


def compute(me: Process, command: events.Compute) -> None:
    """Forward and backward."""
    me.obey()
    me.begin_step(command.cursor.step)
    if not me.reached("compute"):
        me.later(me.draw(me.world.times(me).step_s), on_computed)


def on_computed(me: Process) -> None:
    """Forward and backward are done."""
    me.advance(computed(me))


def computed(me: Process) -> events.Computed:
    """The step is in hand, from the state that was there before it."""
    courier = me.courier
    if me.in_hand is not None:  # a sum over two steps is nobody's gradient
        me.in_hand = (me.step, hash((me.in_hand, me.state)), False)
    else:
        me.in_hand = (me.step, me.state, False)
    wished = bool(courier.control.wish) or courier.orphaned_for_s > 0
    now = me.world.timeline.now + me.skew_s
    return events.Computed(1.0, 1.0, 0, now, wished, me.saver.interval_s())


def exchange(me: Process, command: events.Exchange) -> events.Event | None:
    """Publish the contribution and collect the sums."""
    if me.workers == 1:
        sum_up(me)
        return events.Exchanged(merge([command.header]))
    me.give(command.header.step, "sums", (command.header, me.in_hand), _summed)
    me.reached("contributed")
    return None


def _summed(me: Process, gathering: Gathering) -> None:
    """All contributions are there: reduce this rank's piece, and publish it."""
    me.is_waiting = False
    if gathering.result is None:
        headers, values = zip(*gathering.values, strict=True)
        me.world.invariants.contributed(me, headers, values)
        gathering.result = merge(headers)
    me.later(me.draw(me.world.times(me).exchange_s), _reduced, gathering.result)


def _reduced(me: Process, merged: Header) -> None:
    me.attempt(type(me).give, merged.step, "reduced", merged, _exchanged)
    me.reached("reduced")


def _exchanged(me: Process, gathering: Gathering) -> None:
    me.troubles = 0
    sum_up(me)
    me.advance(events.Exchanged(gathering.values[me.rank]))


def sum_up(me: Process) -> None:
    """What is in hand is now the work of all ranks."""
    if me.in_hand is not None:
        me.in_hand = (*me.in_hand[:2], True)


def commit(me: Process, command: events.Commit) -> events.Event | None:
    """Apply the step."""
    return None if me.reached("commit") else apply(me, command)


def apply(me: Process, command: events.Commit) -> events.Committed:
    """Apply the step, without a look at what lies in wait."""
    world, cursor = me.world, command.cursor
    now = world.timeline.now
    world.invariants.committing(me, command)
    me.is_fresh = False
    me.state = world.chain(me.state, cursor)
    me.private = me.private + 1 if me.private != LOST else LOST
    me.in_hand = None
    me.step = cursor.step + 1
    if world.exchanges(cursor):
        me.exchanged = me.state, me.private, me.step
    me.courier.steps.append(world.record(me, cursor))
    return events.Committed(now + me.skew_s)


# Between steps


def evaluate(me: Process, command: events.Evaluate) -> None:
    """Evaluate this rank's share, and gather all."""
    me.doing("evaluating")
    if not me.reached("evaluate"):
        me.later(me.draw(me.world.times(me).evaluate_s), gather_evaluation, command.cursor)


def gather_evaluation(me: Process, cursor: Cursor) -> None:
    """This rank's share is evaluated."""
    _gather(me, cursor.step, "eval", True, _evaluated)


def _evaluated(me: Process, _: Sequence[bool]) -> None:
    me.advance(evaluation(me))


def evaluation(me: Process) -> events.Evaluated:
    """The metrics of all ranks together."""
    metrics = me.world.metrics(me.step)
    if me.rank == 0:
        me.courier.evaluations.append(Evaluation(me.step, 0, metrics, me.world.times(me).evaluate_s))
    return events.Evaluated(metrics)


def keep_best(me: Process, command: events.KeepBest) -> events.Event:
    """Rank 0 writes the model."""
    return events.BestKept()


def save(me: Process, command: events.Save) -> events.Event | None:
    """Copy this rank's share, which is then written beside the next steps; the last one is waited for."""
    me.doing("saving")
    if me.reached("save"):
        return None
    if command.last:
        me.saver.give_up()
    if me.saver.is_busy:
        me.is_waiting = True
        me.obey()
        return None  # until `saved`
    return _begin_save(me, command)


def _begin_save(me: Process, command: events.Save) -> events.Event | None:
    me.saver.begin(command)
    if command.last:
        me.is_waiting = True
        return None
    return events.Saved(me.world.timeline.now + me.skew_s)


def saved(me: Process) -> None:
    """A checkpoint is over, and the training may have waited for that."""
    command, saving = me.command, me.saver.saving
    if not isinstance(command, events.Save) or not me.is_waiting or saving is None:
        return
    if saving.attempt.step != command.cursor.step or saving.given_up:
        outcome = _begin_save(me, command)
        if outcome:
            me.advance(outcome)
    elif saving.failed:
        me.fail(error_of(saving))
    else:
        me.advance(events.Saved(me.world.timeline.now + me.skew_s))


def export(me: Process, command: events.Export) -> events.Event | None:
    """Rank 0 writes the model."""
    if me.reached("export"):
        return None
    if me.rank == 0:
        me.world.invariants.exported_by(me)
    return events.Exported()


def leave(me: Process, command: events.Leave) -> None:
    """Part from the others, and say the last word."""
    if command.cursor is None:
        me.finish()
        return
    me.doing("leaving")
    if not me.reached("leave"):
        _gather(me, command.cursor.step, "bye", True, _parted)


def _parted(me: Process, _: Sequence[bool]) -> None:
    command = me.command
    assert isinstance(command, events.Leave)
    if not me.reached("parted"):
        me.world.invariants.leaving(me)
        me.finish(left=Left(command.reason, me.step))


HANDS: dict[type[events.Command], Callable[[Any, Any], events.Event | None]] = {
    events.Claim: claim,
    events.Build: build,
    events.AwaitRound: await_round,
    events.Meet: meet,
    events.Restore: restore,
    events.Fetch: fetch,
    events.Serve: serve,
    events.Stay: stay,
    events.Forget: forget,
    events.Compute: compute,
    events.Exchange: exchange,
    events.Commit: commit,
    events.Evaluate: evaluate,
    events.KeepBest: keep_best,
    events.Save: save,
    events.Export: export,
    events.Leave: leave,
}
"""What is done for each command."""
