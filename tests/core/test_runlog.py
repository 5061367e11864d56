"""The event log of a run: what is written is read back in order, by one writer at a time; and the view of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core import layout
from smlt.core.errors import ProtocolError
from smlt.core.runlog import RunEvent, RunLog, RunView, read_events, view_of
from tests.support.clocks import FakeClock
from tests.support.stores import DictStore


@given(st.lists(st.integers(0, 4), max_size=10))
def test_events_are_read_back_in_order_however_they_were_flushed(batches: list[int]) -> None:
    store, clock = DictStore(), FakeClock(5.0)
    log, written = RunLog(store, clock), []
    for number, size in enumerate(batches):
        for item in range(size):
            log.append("output", {"text": f"{number}.{item}", "rank": 0})
            written.append(RunEvent(clock.now, "output", {"text": f"{number}.{item}", "rank": 0}))
            clock.advance(1.0)
        log.flush()
    assert [event for _, event in read_events(store)] == written
    assert len(store.keys(layout.LOG)) == sum(size > 0 for size in batches)


def test_an_event_is_told_at_once_and_durable_after_a_flush() -> None:
    store, told = DictStore(), []
    log = RunLog(store, FakeClock(3.0), told.append)
    log.append("wish", {"reason": "budget"})
    assert told == [RunEvent(3.0, "wish", {"reason": "budget"})]
    assert list(read_events(store)) == []
    log.flush()
    assert list(read_events(store)) == [(0, told[0])]


def test_an_event_keeps_what_it_was_told() -> None:
    store, data = DictStore(), {"reason": "budget"}
    log = RunLog(store, FakeClock())
    log.append("wish", data)
    data["reason"] = "changed"
    log.flush()
    assert [event.data for _, event in read_events(store)] == [{"reason": "budget"}]


def test_a_reader_goes_on_where_it_left_off() -> None:
    store = DictStore()
    log = RunLog(store, FakeClock())
    for text in "abc":
        log.append("output", {"text": text})
        log.flush()
    assert [(number, event.data["text"]) for number, event in read_events(store, first_segment=1)] == [
        (1, "b"),
        (2, "c"),
    ]
    assert list(read_events(store, first_segment=3)) == []


def test_the_next_writer_continues() -> None:
    store = DictStore()
    for text in "ab":
        log = RunLog(store, FakeClock())
        log.append("output", {"text": text})
        log.flush()
    assert [event.data["text"] for _, event in read_events(store)] == ["a", "b"]


def test_two_writers_at_once_are_refused_and_nothing_is_overwritten() -> None:
    store = DictStore()
    first, second = RunLog(store, FakeClock()), RunLog(store, FakeClock())
    for log, text in ((first, "a"), (second, "b")):
        log.append("output", {"text": text})
    first.flush()
    with pytest.raises(ProtocolError, match="another controller writes this run's log"):
        second.flush()
    assert [event.data["text"] for _, event in read_events(store)] == ["a"]


def test_a_line_of_json_stands_alone() -> None:
    event = RunEvent(1.5, "evaluated", {"step": 3, "metrics": {"auc": float("nan"), "loss": float("inf"), "f": 0.5}})
    line = event.to_json()
    assert "\n" not in line
    assert json.loads(line, parse_constant=pytest.fail) == {
        "time": 1.5,
        "kind": "evaluated",
        "step": 3,
        "metrics": {"auc": None, "loss": None, "f": 0.5},
    }


# The view

CREATED = {"run": "digits", "backend": "local", "task": "t.py:T", "epochs": 3, "deadline_s": 60.0, "budget_usd": 2.0}
READY = {"generation": 1, "rank": 0, "total_steps": 12}
FAILED = {"rank": 0, "kind": "TaskError", "message": "it broke", "hint": "mend it", "traceback": ""}


def steps(*numbers: int, epoch: int = 0, seconds: float = 0.5) -> tuple[str, dict[str, Any]]:
    items = [
        {"step": step, "epoch": epoch, "loss": 1 / (1 + step), "examples": 8, "seconds": seconds} for step in numbers
    ]
    return "steps", {"generation": 1, "items": items}


def fold(*events: tuple[str, dict[str, Any]], view: RunView = RunView()) -> RunView:  # noqa: B008  a value
    for time, (kind, data) in enumerate(events, 100):
        view = view.after(RunEvent(float(time), kind, data))
    return view


STARTED = (
    ("created", CREATED),
    ("planned", {"allocation": {"workers": 2, "memory_mib": 1024}}),
    ("launched", {"generation": 1, "rank": 0, "incarnation": 0}),
    ("launched", {"generation": 1, "rank": 1, "incarnation": 0}),
    ("state", {"state": "starting"}),
    ("ready", READY),
    ("ready", {**READY, "rank": 1}),
    ("state", {"state": "running"}),
)


def test_a_run_that_has_started() -> None:
    view = fold(*STARTED)
    assert (view.run, view.backend, view.task, view.epochs) == ("digits", "local", "t.py:T", 3)
    assert (view.deadline_s, view.budget_usd, view.started, view.ended) == (60.0, 2.0, 100.0, 0.0)
    assert (view.state, view.generation, view.workers_up, view.workers_wanted) == ("running", 1, 2, 2)
    assert (view.step, view.total_steps, view.loss, view.metrics) == (0, 12, None, {})


def test_progress() -> None:
    view = fold(
        *STARTED,
        steps(0, 1),
        steps(2, 3, epoch=1, seconds=0.25),
        ("evaluated", {"step": 4, "epoch": 1, "metrics": {"mse": 0.5}, "seconds": 0.1}),
        ("checkpointed", {"step": 4, "bytes": 100, "seconds": 0.1}),
        ("spent", {"usd": 0.5, "function_s": 20.0}),
        ("exited", {"generation": 1, "rank": 1, "detail": ""}),
    )
    assert (view.step, view.epoch, view.loss, view.examples_per_s) == (4, 1, 0.25, 32.0)
    assert (view.metrics, view.evaluated_step, view.checkpoint_step) == ({"mse": 0.5}, 4, 4)
    assert (view.spent_usd, view.function_s, view.workers_up) == (0.5, 20.0, 1)


def test_a_hand_over_to_a_generation_that_was_made_ready_meanwhile() -> None:
    launched = fold(
        *STARTED,
        steps(0, 1),
        ("state", {"state": "handing_over"}),
        ("launched", {"generation": 2, "rank": 0, "incarnation": 0}),
        ("launched", {"generation": 2, "rank": 1, "incarnation": 0}),
        ("ready", {**READY, "generation": 2}),
        ("exited", {"generation": 1, "rank": 1, "incarnation": 0, "detail": ""}),
    )
    assert (launched.generation, launched.handovers, launched.state) == (2, 0, "handing_over")
    assert (launched.workers_up, launched.replacements) == (2, 0)
    view = fold(
        ("round_opened", {"generation": 2, "round": 0, "workers": 2, "step": 2}),
        ("state", {"state": "running"}),
        ("handed_over", {"generation": 2, "stall_s": 0.25}),
        view=launched,
    )
    assert (view.handovers, view.handover_stalls_s, view.workers_up) == (1, (0.25,), 2)


def test_a_generation_that_starts_when_the_one_before_is_over() -> None:
    view = fold(
        *STARTED, ("launched", {"generation": 2, "rank": 0, "incarnation": 0}), ("state", {"state": "starting"})
    )
    assert (view.generation, view.workers_up, view.state) == (2, 0, "starting")


def test_a_rank_that_is_replaced() -> None:
    lost = fold(
        *STARTED,
        steps(0, 1, 2),
        ("exited", {"generation": 1, "rank": 1, "incarnation": 0, "detail": "killed by signal 9"}),
        ("launched", {"generation": 1, "rank": 1, "incarnation": 1}),
        ("state", {"state": "recovering"}),
    )
    assert (lost.state, lost.workers_up, lost.replacements, lost.generation) == ("recovering", 1, 1, 1)
    view = fold(
        ("round_opened", {"generation": 1, "round": 1, "workers": 2, "step": 2}),
        ("rolled_back", {"step": 2}),
        view=lost,
    )
    assert (view.workers_up, view.step) == (2, 2)


def test_another_number_of_workers_is_wanted() -> None:
    view = fold(*STARTED, ("scale", {"workers": 3}))
    assert (view.workers_wanted, view.workers_up) == (3, 2)


def test_a_failed_run_and_its_second_session() -> None:
    failed = fold(*STARTED, ("failed", FAILED), ("finished", {"status": "failed", "stop_reason": "TaskError"}))
    assert (failed.state, failed.stop_reason, failed.ended) == ("failed", "TaskError", 109.0)
    assert (failed.error, failed.workers_up) == ("it broke\n  hint: mend it", 0)
    again = fold(*STARTED[:1], ("launched", {"generation": 2, "rank": 0, "incarnation": 0}), view=failed)
    assert (again.state, again.stop_reason, again.ended, again.error) == ("planning", "", 0.0, "")
    assert (again.started, again.generation, again.handovers) == (100.0, 2, 0)


def test_a_finished_run() -> None:
    view = fold(*STARTED, ("finished", {"status": "succeeded", "stop_reason": "goal", "model_path": "/m"}))
    assert (view.state, view.stop_reason, view.model_path) == ("succeeded", "goal", "/m")


def test_an_event_of_a_newer_smlt_changes_nothing() -> None:
    view = fold(*STARTED)
    assert view.after(RunEvent(1.0, "teleported", {"x": 1})) == view


def test_the_view_of_a_store_is_the_fold_of_its_log() -> None:
    store = DictStore()
    assert view_of(store) == RunView()
    log = RunLog(store, FakeClock(100.0))
    for kind, data in STARTED:
        log.append(kind, data)
    log.flush()
    assert view_of(store).workers_up == 2
