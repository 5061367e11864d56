"""The run's machine: failures, losses, limits; and that any order of events comes to one end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.controller import BEGIN_AGAIN, GO_ON
from smlt.core.messages import Left
from smlt.core.run_events import Finish, KillWorkers, Launch, StopWorkers, Wish
from tests.support.events import FAILURE, Desk


def test_a_failure_in_the_task_stops_all_and_is_told() -> None:
    desk = Desk(workers=3)
    desk.run()
    assert desk.failed(1) == [StopWorkers()]
    assert desk.state == "stopping"
    assert desk.left(0, "stopped") == desk.left(2, "stopped") == []
    assert desk.exited(0) == desk.exited(1) == []
    assert desk.exited(2) == [Finish("failed", "TaskError", failure=FAILURE)]
    assert [(record["rank"], record["message"]) for record in desk.records("failed")] == [(1, "it broke")]


def test_the_first_failure_is_the_one_that_is_told() -> None:
    desk = Desk()
    desk.run()
    desk.failed(0)
    other = type(FAILURE)("JobFailed", "a consequence", "", "")
    assert desk.failed(1, other) == []
    assert desk.all_exit() == [Finish("failed", "TaskError", failure=FAILURE)]
    assert len(desk.records("failed")) == 1


def test_a_failure_before_the_others_are_ready() -> None:
    desk = Desk()
    desk.start()
    assert desk.failed(0) == [StopWorkers()]
    assert desk.ready(1) == []
    assert desk.all_exit() == [Finish("failed", "TaskError", failure=FAILURE)]


@pytest.mark.parametrize(("detail", "how"), [("killed by signal 9", "signal 9"), ("", "it returned without a word")])
def test_a_lost_worker_fails_the_run_and_says_where(detail: str, how: str) -> None:
    desk = Desk()
    desk.run()
    desk.steps(0, 1, 2)
    assert desk.exited(1, lost=bool(detail), detail=detail) == [StopWorkers()]
    (finish,) = desk.exited(0)
    assert isinstance(finish, Finish)
    assert (finish.status, finish.stop_reason) == ("failed", "worker lost")
    assert finish.failure is not None
    assert "rank 1 was lost at step 3" in finish.failure.message
    assert how in finish.failure.message
    assert finish.failure.hint == BEGIN_AGAIN


def test_a_lost_worker_leaves_the_checkpoint_to_go_on_from() -> None:
    desk = Desk()
    desk.run()
    desk.steps(0, 1, 2)
    desk.checkpointed(3)
    desk.exited(1, lost=True, detail="killed")
    (finish,) = desk.exited(0)
    assert isinstance(finish, Finish)
    assert finish.failure is not None
    assert finish.failure.hint == GO_ON


def test_a_worker_that_exits_after_its_last_word_is_not_lost() -> None:
    desk = Desk()
    desk.run()
    desk.left(1, "goal")
    assert desk.exited(1, lost=True, detail="killed") == []
    assert desk.left(0, "goal") == [Finish("succeeded", "goal", Left("goal"))]


def test_a_loss_while_stopping_softly_stops_the_rest_at_once() -> None:
    """They would wait for the lost one, and nobody would tell them not to."""
    desk = Desk()
    desk.run()
    assert desk.cancel() == [Wish("cancelled")]
    assert desk.exited(1, lost=True, detail="killed") == [StopWorkers()]
    assert desk.left(0, "stopped") == []
    assert desk.exited(0) == [Finish("cancelled", "cancelled")]


def test_a_worker_that_is_never_ready_fails_the_run() -> None:
    desk = Desk(start_deadline_s=60.0, leave_s=5.0)
    desk.start()
    desk.ready(0)
    assert desk.tick(60.0) == []
    assert desk.tick(0.1) == [StopWorkers()]
    assert desk.tick(5.1) == [KillWorkers()]
    (finish,) = desk.all_exit()
    assert isinstance(finish, Finish)
    assert (finish.status, finish.stop_reason) == ("failed", "worker did not start")
    assert finish.failure is not None
    assert "rank 1 did not start within 60 s" in finish.failure.message


def test_a_deadline_ends_the_run_before_it_is_over() -> None:
    desk = Desk(deadline_s=100.0, state_write_s=2.0)
    desk.run()
    desk.steps(0, seconds=3.0)
    assert desk.tick(92.0) == []
    assert desk.tick(0.1) == [Wish("deadline")]
    assert desk.tick(1.0) == []
    assert desk.all_leave("ended", 5) == [Finish("stopped", "deadline", Left("ended", 5))]


def test_a_deadline_holds_for_all_generations_together() -> None:
    desk = Desk(deadline_s=100.0, time_limit_s=60.0)
    desk.run()
    desk.tick(59.0)
    desk.all_leave("ended")
    desk.all_ready()
    assert desk.tick(38.0) == []
    assert desk.tick(1.1) == [Wish("deadline")]


def test_a_budget_ends_the_run() -> None:
    desk = Desk(budget_usd=2.0)
    desk.run()
    assert desk.tick(1.0, usd=1.99) == []
    assert desk.tick(1.0, usd=2.0) == [Wish("budget")]
    assert desk.all_leave("ended", 5) == [Finish("stopped", "budget", Left("ended", 5))]


def test_a_limit_that_is_reached_before_the_first_step_stops_at_once() -> None:
    for limits, usd in (({"deadline_s": 30.0}, 0.0), ({"budget_usd": 1.0}, 1.5)):
        desk = Desk(**limits)
        desk.start()
        assert desk.tick(29.0, usd=usd) == [StopWorkers()]
        (finish,) = desk.all_leave("stopped")
        assert isinstance(finish, Finish)
        assert finish.status == "stopped"


HAPPENINGS = [
    "ready", "steps", "checkpointed", "evaluated", "goal", "ended", "stopped", "failed", "lost", "exited", "cancel",
    "tick", "wait", "spend", "late exit",
]  # fmt: skip


class World:
    """Happenings in an order that workers can bring about: each is ready once, leaves once and is gone after that."""

    def __init__(self, workers: int, **terms: float) -> None:
        self.desk = Desk(workers=workers, **terms)
        self.usd = 0.0
        self.generation = 0
        self.finishes: list[Finish] = []
        self.observe(self.desk.start())

    def observe(self, commands: list) -> None:
        for command in commands:
            assert not self.finishes, "a command after the end"
            if isinstance(command, Finish):
                self.finishes.append(command)
            if isinstance(command, Launch) and command.generation != self.generation:
                assert command.generation == self.generation + 1
                self.generation = command.generation
                self.ready: set[int] = set()
                self.silent: set[int] = set()
                self.gone: set[int] = set()

    def happen(self, what: str, rank: int) -> None:
        rank %= self.desk.terms.workers
        desk, alive = self.desk, rank not in self.silent and rank not in self.gone
        if what == "cancel":
            self.observe(desk.cancel())
        elif what in ("tick", "wait", "spend"):
            self.usd += 0.5 if what == "spend" else 0.0
            self.observe(desk.tick(30.0 if what == "wait" else 0.1, self.usd))
        elif what == "late exit":
            self.observe(desk.exited(rank, generation=self.generation - 1, lost=True))
        elif (what == "exited" and rank not in self.gone) or (alive and what == "lost"):
            self.leave(rank)
        elif alive and what == "ready" and rank not in self.ready:
            self.ready.add(rank)
            self.observe(desk.ready(rank))
        elif alive and what in ("goal", "ended", "stopped"):
            self.silent.add(rank)
            self.observe(desk.left(rank, what))
        elif alive and what == "failed":
            self.silent.add(rank)
            self.observe(desk.failed(rank))
        elif alive and what in ("steps", "checkpointed", "evaluated"):
            self.observe(getattr(desk, what)(3))

    def leave(self, rank: int) -> None:
        self.gone.add(rank)
        self.observe(self.desk.exited(rank, self.generation, lost=True, detail="gone"))


@given(
    st.integers(1, 4),
    st.fixed_dictionaries(
        {}, optional={"deadline_s": st.just(200.0), "budget_usd": st.just(3.0), "time_limit_s": st.just(100.0)}
    ),
    st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 3)), max_size=60),
)
def test_whatever_happens_a_run_ends_once_all_its_workers_are_gone(
    workers: int, terms: dict[str, float], history: list[tuple[str, int]]
) -> None:
    world = World(workers, **terms)
    for what, rank in history:
        world.happen(what, rank)
    for _ in range(2):  # a generation may have ended as agreed just now, which starts another
        for rank in range(workers):
            world.happen("lost", rank)
            world.happen("exited", rank)
    assert len(world.finishes) == 1
    assert world.desk.state == "over"


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 3)), max_size=60))
def test_a_cancelled_run_ends_although_its_workers_do_not_react(workers: int, history: list[tuple[str, int]]) -> None:
    world = World(workers)
    for what, rank in history:
        world.happen(what, rank)
    if not world.finishes:
        for _ in range(3):
            world.desk.cancel()
        assert KillWorkers() in world.desk.said


def test_a_limit_is_a_wall_for_who_does_not_end_in_time() -> None:
    desk = Desk(deadline_s=100.0, leave_s=5.0, state_write_s=2.0)
    desk.run()
    assert desk.tick(98.5) == [Wish("deadline")]
    assert desk.tick(8.9) == []
    assert desk.tick(0.2) == [StopWorkers()]
    assert desk.tick(5.1) == [KillWorkers()]


def test_a_user_who_cancels_may_wait_as_long_as_it_takes() -> None:
    desk = Desk(leave_s=5.0)
    desk.run()
    assert desk.cancel() == [Wish("cancelled")]
    assert desk.tick(1000.0) == []
