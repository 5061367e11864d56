"""What workers told a controller that is dead by now: which of it follows on the log."""

from __future__ import annotations

from smlt.core import layout, wire
from smlt.core.leftover import Leftover
from smlt.core.messages import Evaluation, Mail, StepRecord
from tests.support.stores import DictStore


def record(step: int, rank: int = 0) -> StepRecord:
    """Its loss says which rank told it."""
    return StepRecord(step, 0, float(rank), 8, 0.1, 0.05, 0.03, 0.02)


class Box:
    """A run's store with mail in it."""

    def __init__(self) -> None:
        self.store = DictStore()
        self._number = 0

    def mail(self, *steps: int, rank: int = 0, generation: int = 1, evaluated: tuple[int, ...] = ()) -> None:
        """A rank tells steps and evaluations."""
        evaluations = tuple(Evaluation(step, 0, {"mse": step}, 0.1) for step in evaluated)
        mail = Mail("computing", 0, steps=tuple(record(step, rank) for step in steps), evaluations=evaluations)
        self.store.put(layout.mail(generation, rank, 0, self._number), wire.pack(mail))
        self._number += 1

    def find(self, known: int, until: int) -> Leftover:
        return Leftover.find(self.store, known, until)


def test_steps_that_follow_on_the_log_up_to_where_the_run_goes_on() -> None:
    box = Box()
    box.mail(2, 3)
    box.mail(4, 5, 6)
    assert box.find(3, 6).steps == (record(3), record(4), record(5))
    assert box.find(3, 6).generation == 1


def test_a_gap_ends_them() -> None:
    box = Box()
    box.mail(3, 5)
    assert box.find(3, 6).steps == (record(3),)
    assert box.find(2, 6).steps == ()


def test_what_rank_0_did_not_tell_others_did() -> None:
    box = Box()
    box.mail(3, 4, 5, rank=1)
    box.mail(3)
    assert box.find(3, 6).steps == (record(3, 0), record(4, 1), record(5, 1))


def test_a_step_that_two_generations_made_is_told_once() -> None:
    box = Box()
    box.mail(3, 4, generation=1)
    box.mail(4, 5, generation=2)
    assert [each.step for each in box.find(3, 6).steps] == [3, 4, 5]
    assert box.find(3, 6).generation == 2


def test_evaluations_among_them() -> None:
    box = Box()
    box.mail(3, 4, evaluated=(2, 3, 5, 6))
    assert [each.step for each in box.find(3, 6).evaluations] == [3, 5]


def test_no_mail_is_no_news_and_cleared_mail_is_gone() -> None:
    box = Box()
    assert box.find(3, 6) == Leftover(0, (), (), ())
    box.mail(3)
    box.find(3, 6).clear(box.store)
    assert box.find(3, 6) == Leftover(0, (), (), ())
