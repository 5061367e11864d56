"""After a controller that was lost: what the functions that it left cost, and whether the next one takes them over."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from smlt.core import layout, lease, wire
from smlt.core.catalog import Catalog, FunctionPrice
from smlt.core.driver import FLUSH_S
from smlt.core.engine import RunRequest, run
from smlt.core.job import JobSpec
from smlt.core.messages import Control, Failure, Left, Mail, Ready
from smlt.core.parcel import TaskParcel
from smlt.core.runlog import RunEvent, view_of
from smlt.core.summary import Summary
from smlt.core.task import TaskShape
from tests.support.scripted import Function, Script, ScriptedBackend, ScriptedLauncher, scripted_registry

PARCEL = TaskParcel("x:Linear", (), b"zip", "x", "Linear")
PRICE_USD_PER_S = 0.001
LEASE_S = lease.lease_s(1.0, None, 0.0)


class Lost(BaseException):
    """A controller's process is gone."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    price = FunctionPrice(usd_per_gib_s=PRICE_USD_PER_S, usd_per_request=0.0)
    catalog = Catalog(provider="scripted", source="made up", as_of="2026-01-01", function=price)
    monkeypatch.setattr(ScriptedBackend, "catalog", property(lambda backend: catalog))
    monkeypatch.setattr("smlt.core.driver.FLUSH_S", 0.0)
    monkeypatch.setattr("smlt.core.control.SILENT_S", 0.0)


def train(folder: Path, script: Script, listener=None, **sections: dict) -> Summary:
    plain = {"job": {"task": "x:Linear", "name": "test"}, "backend": {"name": "scripted"}, "workers": {"count": 2}}
    spec = JobSpec.model_validate({**plain, **sections})
    request = RunRequest(spec, folder, folder, kept=PARCEL)
    return run(request, scripted_registry(script), listener=listener)


def get_ready(function: Function) -> None:
    spec, uuid = function.spec, f"uuid-{function.spec.label}"
    function.store.put(layout.claim(spec.generation, spec.rank, spec.incarnation), uuid.encode())
    function.say(Mail("ready", 0, ready=Ready(uuid, TaskShape(10, 0, 3, ()), 5)))


def reach_the_goal(function: Function) -> None:
    function.say(Mail("leaving", 5, left=Left("goal", 5, 1, "w" * 64, "s" * 64)))
    function.end()


def train_to_the_goal(function: Function) -> None:
    get_ready(function)
    reach_the_goal(function)


def fail(function: Function) -> None:
    function.say(Mail("building", 0, failure=Failure("TaskError", "it broke", "mend it", "")))
    function.end()


def lose_the_controller(folder: Path) -> dict[str, Function]:
    """Once a round is open and the log says so; returns the functions that it leaves."""
    kinds: list[str] = []

    def listen(event: RunEvent) -> None:
        kinds.append(event.kind)
        if "round_opened" in kinds and kinds[kinds.index("round_opened") :].count("spent") == 2:
            raise Lost

    with pytest.raises(Lost):
        train(folder, get_ready, listen)
    functions = ScriptedBackend.launchers[0].functions
    store = functions["1.0.0"].store
    control = wire.unpack(store.get(layout.CONTROL), Control)
    store.put(layout.CONTROL, wire.pack(replace(control, closed=False)))  # nobody could
    return functions


def adopting(monkeypatch: pytest.MonkeyPatch, functions: dict[str, Function]) -> None:
    def adopt(launcher: ScriptedLauncher, labels: Sequence[str]) -> Mapping[str, str]:
        launcher.functions |= functions
        return {label: label for label in labels}

    monkeypatch.setattr(ScriptedLauncher, "_do_adopt", adopt)


def orphans_s() -> float:
    return 2 * (LEASE_S + FLUSH_S)


def test_functions_that_nobody_adopts_have_spent_their_leases(tmp_path: Path) -> None:
    """Once: in the session that follows, whose figures the one after that goes on from."""
    functions = lose_the_controller(tmp_path)
    second = train(tmp_path, fail)
    assert second.cost_usd["total"] == pytest.approx(orphans_s() * PRICE_USD_PER_S, abs=0.05)
    assert view_of(functions["1.0.0"].store).function_s == pytest.approx(orphans_s(), abs=50)
    third = train(tmp_path, train_to_the_goal)
    assert third.status == "succeeded"
    assert third.cost_usd["total"] == pytest.approx(orphans_s() * PRICE_USD_PER_S, abs=0.05)


def test_those_who_are_long_gone_have_spent_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_the_controller(tmp_path)
    today = time.time()
    monkeypatch.setattr(time, "time", lambda: today + 86400)
    summary = train(tmp_path, train_to_the_goal)
    assert summary.cost_usd["total"] == pytest.approx(orphans_s() * PRICE_USD_PER_S, abs=0.05)


def test_a_budget_that_they_may_have_used_up_launches_nothing(tmp_path: Path) -> None:
    lose_the_controller(tmp_path)
    summary = train(tmp_path, train_to_the_goal, limits={"budget": f"{orphans_s() * PRICE_USD_PER_S}usd"})
    assert (summary.status, summary.stop_reason) == ("stopped", "budget")
    assert ScriptedBackend.launchers[0].functions == {}


def test_functions_that_are_adopted_cost_what_they_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = lose_the_controller(tmp_path)
    adopting(monkeypatch, functions)
    for function in functions.values():
        reach_the_goal(function)
    events: list[RunEvent] = []
    summary = train(tmp_path, train_to_the_goal, events.append, limits={"budget": "1usd"})
    assert (summary.status, summary.generations) == ("succeeded", 1)
    assert [event.kind for event in events].count("adopted") == 1
    assert summary.cost_usd["total"] < 0.1 < orphans_s() * PRICE_USD_PER_S


def test_leases_that_the_budget_does_not_allow_are_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were given by a session that had no budget; the functions are ended, and others launched."""
    functions = lose_the_controller(tmp_path)
    adopting(monkeypatch, functions)
    events: list[RunEvent] = []
    summary = train(tmp_path, train_to_the_goal, events.append, limits={"budget": "0.2usd"})
    assert (summary.status, summary.generations) == ("succeeded", 2)
    assert "adopted" not in [event.kind for event in events]
    launcher = ScriptedBackend.launchers[0]
    assert launcher.stopped[:2] == ["1.0.0", "1.1.0"]
    (lease_s,) = {event.data["lease_s"] for event in events if event.kind == "launched"}
    assert lease_s == pytest.approx(0.1 * 0.2 / (2 * PRICE_USD_PER_S))
    assert launcher.functions["2.0.0"].spec.lease_s == lease_s
