"""A controller that takes over from one that is gone: which functions it goes on with, and how its machine does."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from smlt._version import __version__
from smlt.core import layout, wire
from smlt.core.adoption import Adoption, adoptable
from smlt.core.job import JobSpec
from smlt.core.messages import Round, RunRecord
from smlt.core.parcel import TaskParcel
from smlt.core.plugins import load_registry
from smlt.core.run_events import Address, Adopted, Kill, Launch, OpenRound, Started, Wish
from smlt.core.runlog import RunLog
from smlt.core.runs import OpenRun, open_run
from tests.support.events import Desk, launches, relaunch

ROUND = Round(3, 4, ("a", "b"))
ADOPTED = Adopted(ROUND, "", (0, 2), (0, 2), (900.0, 950.0), (1024, 2048), (), total_steps=50, eval_examples=20)


class Successor(Desk):
    """The desk of a controller that adopts; ranks' events come from the adopted incarnations."""

    def adopt(self, adopted: Adopted = ADOPTED, step: int = 7) -> list:
        self.generation = adopted.round.generation
        for address in adopted.addresses:
            self.launched[address.generation, address.rank] = Launch(address, len(adopted.addresses), 1024)
        manifest = layout.manifest(5)
        return self.tell(Started(self.now, self.generation + 1, manifest, step, adopted=adopted))


def test_nothing_is_launched_and_no_round_opened_for_functions_that_go_on() -> None:
    desk = Successor()
    assert desk.adopt() == []
    assert desk.state == "running"
    assert desk.records("adopted") == [{"generation": 3, "round": 4, "workers": 2, "step": 7}]
    assert [desk.steps(7, 8), desk.tick(1.0)] == [[], []]
    assert [item["step"] for record in desk.records("steps") for item in record["items"]] == [7, 8]
    assert desk.records("rolled_back") == []


def test_a_rank_that_dies_later_is_replaced_by_its_next_incarnation_in_the_next_round() -> None:
    desk = Successor()
    desk.adopt()
    assert desk.killed(1) == [relaunch(3, 1, 3)]
    assert desk.state == "recovering"
    (opened,) = [*desk.ready(1), *desk.ready(0, after_round=4)]
    assert isinstance(opened, OpenRound)
    assert (opened.round.generation, opened.round.number) == (3, 5)
    assert opened.round.resume_from == layout.manifest(5)


def test_a_rank_that_was_being_replaced_is_replaced_again() -> None:
    desk = Successor()
    commands = desk.adopt(replace(ADOPTED, lost=(1,)))
    assert relaunch(3, 1, 3) in commands
    assert desk.state == "recovering"


def test_an_end_that_was_wished_for_comes_and_the_next_generation_follows() -> None:
    desk = Successor()
    assert desk.adopt(replace(ADOPTED, wish="time limit")) == []
    assert desk.state == "handing_over"
    assert desk.all_leave("ended", 9) == launches(4, 2)


def test_a_run_whose_number_of_workers_was_being_changed_comes_to_it() -> None:
    desk = Successor(workers=3)
    desk.adopt()
    assert desk.tick(1.0) == launches(4, 3)
    assert desk.all_ready(4) == [Wish("hand over")]


def test_who_adopts_can_be_cancelled() -> None:
    desk = Successor()
    desk.adopt()
    assert desk.cancel() == [Wish("cancelled")]


# Which functions


class Before:
    """A run whose controller is gone, in its third generation."""

    def __init__(self, folder: Path) -> None:
        self.parcel = TaskParcel("task.py:Digits", (), b"zip", "task", "Digits")
        self.registry, self.folder = load_registry(), folder
        self.run = self.open()
        self.now = time.time()
        self.log = RunLog(self.run.store, lambda: self.now)
        for rank, (incarnation, uuid) in enumerate([(0, "a"), (2, "b")]):
            self.claim(rank, incarnation, uuid)

    def open(self, **sections: dict) -> OpenRun:
        job = {"task": "task.py:Digits", "epochs": 5, **sections.pop("job", {})}
        spec = JobSpec.model_validate({"job": job, "workers": {"count": 2}, **sections})
        backend = self.registry.backend("local", {})
        named = spec.model_copy(update={"job": spec.job.model_copy(update={"name": "run"})})
        return open_run(named, backend, self.parcel, self.folder, self.registry, 0.0)

    def claim(self, rank: int, incarnation: int, uuid: str) -> None:
        self.run.store.put(layout.claim(3, rank, incarnation), uuid.encode())

    def logged(self, *, version: str = __version__, ready: bool = True, leases: bool = True) -> None:
        spec = self.run.spec
        unnamed = spec.model_copy(update={"job": spec.job.model_copy(update={"name": None})})
        code = {"sha256": self.parcel.sha256}
        run = {"run": "run", "backend": "local", "task": "task.py:Digits", "epochs": 5}
        limits = {"deadline_s": None, "budget_usd": None}
        told = {"job": unnamed.to_plain(), "folder": "/", "code": code, "smlt": version}
        self.log.append("created", {**run, **limits, **told})
        for generation, rank, incarnation in [(2, 0, 7), (3, 0, 0), (3, 1, 0), (3, 1, 1), (3, 1, 2)]:
            address = {"generation": generation, "rank": rank, "incarnation": incarnation}
            lease = {"lease_s": 100.0 + incarnation} if leases else {}
            self.log.append("launched", {**address, "memory_mib": 1024 + incarnation, **lease})
            if ready:
                self.log.append("ready", {**address, "total_steps": 50, "eval_examples": 20})
        step = {"step": 0, "epoch": 0, "loss": 1.0, "examples": 8, "seconds": 0.1}
        self.log.append("steps", {"generation": 3, "items": [{**step, "round": 4}, {**step, "round": 5, "step": 2}]})
        self.log.append("steps", {"generation": 2, "items": [{**step, "round": 8}]})
        self.log.append("spent", {"usd": 0.0, "function_s": 1.0})
        self.log.flush()

    def found(self, opened: Round = ROUND, **sections: dict) -> Adoption | None:
        return adoptable(self.open(**sections), opened, "", 1000.0)


@pytest.fixture
def before(tmp_path: Path) -> Before:
    return Before(tmp_path)


def test_the_newest_incarnation_of_each_rank_is_found(before: Before) -> None:
    before.now -= 30.0
    before.logged()
    found = before.found()
    assert found is not None
    assert found.adopted.addresses == (Address(3, 0, 0), Address(3, 1, 2))
    assert found.adopted.launched_at == pytest.approx((970.0, 970.0), abs=20.0)
    assert (found.adopted.lost, found.adopted.total_steps, found.adopted.eval_examples) == ((), 50, 20)
    assert (found.adopted.memory_mib, found.adopted.heirs) == ((1024, 1026), ())
    assert [found.lease_s[address] for address in found.adopted.addresses] == [100.0, 102.0]
    assert (found.told, found.paid_until) == ((5, 2), before.now)


def test_who_is_not_in_the_round_is_lost(before: Before) -> None:
    before.claim(1, 2, "another")
    before.logged()
    found = before.found()
    assert found is not None
    assert found.adopted.lost == (1,)


def test_whose_heir_was_making_ready_goes_on_and_the_heir_is_ended(before: Before) -> None:
    before.logged()
    before.log.append(
        "launched", {"generation": 3, "rank": 0, "incarnation": 1, "memory_mib": 2048, "lease_s": 9.0, "is_heir": True}
    )
    before.log.flush()
    before.claim(0, 1, "an heir")
    found = before.found()
    assert found is not None
    assert (found.adopted.incarnations, found.adopted.lost) == ((0, 2), ())
    assert found.adopted.heirs == (Address(3, 0, 1),)
    assert found.memory_mib[Address(3, 0, 1)] == 2048
    desk = Successor()
    assert desk.adopt(found.adopted) == [Kill(Address(3, 0, 1))]
    assert desk.killed(0) == [relaunch(3, 0, 2)]


def test_one_that_was_lost_is_replaced_by_the_one_after_it(before: Before) -> None:
    before.logged()
    address = {"generation": 3, "rank": 0}
    before.log.append("lost", {**address, "incarnation": 0})
    before.log.append("launched", {**address, "incarnation": 1, "memory_mib": 1024, "lease_s": 9.0, "is_heir": False})
    before.log.flush()
    found = before.found()
    assert found is not None
    assert (found.adopted.incarnations, found.adopted.lost, found.adopted.heirs) == ((1, 2), (0,), ())


def test_limits_are_the_controllers_business(before: Before) -> None:
    before.logged()
    assert before.found(limits={"budget": "3usd", "deadline": "2h"})


@pytest.mark.parametrize(
    "sections",
    [{"job": {"epochs": 6}}, {"workers": {"count": 3}}, {"train": {"clip_norm": 1.0}}, {"sync": {"codec": "bf16"}}],
)
def test_functions_that_were_told_to_do_something_else_are_not_gone_on_with(before: Before, sections: dict) -> None:
    before.logged()
    assert before.found(**sections) is None


def test_nor_those_with_other_code(before: Before) -> None:
    before.logged()
    before.parcel = replace(before.parcel, bundle=b"mended")
    assert before.found() is None


def test_nor_those_of_another_smlt(before: Before) -> None:
    before.logged(version="0.0.1")
    assert before.found() is None


def test_nor_a_round_that_had_hardly_begun(before: Before) -> None:
    before.logged(ready=False)
    assert before.found() is None


def test_nor_one_of_which_nobody_is_left(before: Before) -> None:
    before.logged()
    assert before.found(Round(3, 9, ("c", "d"))) is None
    assert wire.unpack(before.run.store.get(layout.RECORD), RunRecord).name == "run"


def test_nor_those_whose_lease_nobody_noted(before: Before) -> None:
    before.logged(leases=False)
    assert before.found() is None
