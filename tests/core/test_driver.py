"""The engine against functions that do what a test says: what it hands them, and what becomes of surprises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smlt._version import __version__
from smlt.core import layout, wire
from smlt.core.backend import Phase
from smlt.core.engine import RunRequest, run
from smlt.core.errors import CloudError, ConfigError
from smlt.core.job import JobSpec
from smlt.core.messages import CheckpointDone, Control, Failure, Left, Mail, Ready, Rejoined, Round, StepRecord
from smlt.core.patient_store import PatientStore
from smlt.core.runlog import RunEvent, read_events, view_of
from smlt.core.summary import Summary
from smlt.core.task import TaskShape
from tests.support.linear import Linear
from tests.support.scripted import Function, Script, ScriptedBackend, ScriptedLauncher, scripted_registry


def train(folder: Path, script: Script, listener=None, start_deadline_s: float = 60.0, **sections: dict) -> Summary:
    plain = {"job": {"task": "x:Linear", "name": "test"}, "backend": {"name": "scripted"}, "workers": {"count": 2}}
    spec = JobSpec.model_validate({**plain, **sections})
    return run(RunRequest(spec, folder, folder, Linear), scripted_registry(script, start_deadline_s), listener=listener)


def ready(function: Function) -> Mail:
    return Mail("ready", 0, ready=Ready(f"uuid-{function.spec.label}", TaskShape(10, 0, 3, ()), 5))


def reach_the_goal(function: Function) -> None:
    function.say(ready(function))
    function.say(Mail("leaving", 5, left=Left("goal", 5, 1, "w" * 64, "s" * 64)))
    function.end()


def test_functions_are_told_all_that_they_need(tmp_path: Path) -> None:
    specs = []

    def script(function: Function) -> None:
        specs.append(function.spec)
        reach_the_goal(function)

    summary = train(tmp_path, script, workers={"count": 3, "memory": "2GiB"})
    assert [(spec.generation, spec.rank, spec.world_size, spec.incarnation) for spec in specs] == [
        (1, 0, 3, 0), (1, 1, 3, 0), (1, 2, 3, 0),
    ]  # fmt: skip
    spec = specs[0]
    assert (spec.run, spec.controller_epoch, spec.smlt_version) == ("test", 1, __version__)
    assert (spec.memory_mib, spec.time_limit_s) == (2048, None)
    assert JobSpec.from_plain(spec.job).workers.count == 3
    assert spec.task_payload
    assert (summary.status, summary.weights_sha256, summary.state_sha256) == ("succeeded", "w" * 64, "s" * 64)


def test_a_generation_is_in_the_log_before_it_is_launched(tmp_path: Path) -> None:
    """So that whoever comes after a crash right now launches the next one."""
    known = []

    def script(function: Function) -> None:
        known.append([event.data["rank"] for _, event in read_events(function.store) if event.kind == "launched"])
        reach_the_goal(function)

    train(tmp_path, script)
    assert known == [[0, 1], [0, 1]]


def test_the_listener_is_told_what_the_log_holds(tmp_path: Path) -> None:
    events: list[RunEvent] = []

    def script(function: Function) -> None:
        function.say(ready(function))
        if function.spec.rank == 0:
            function.say(Mail("computing", 1, output=("hello", "world"), steps=(StepRecord(0, 0, 0.5, 8, 1, 0, 0, 0),)))
        function.say(Mail("leaving", 1, left=Left("goal", 1, 1)))
        function.end()

    train(tmp_path, script, events.append)
    stored = [event for _, event in read_events(ScriptedBackend.launchers[0].functions["1.0.0"].store)]
    assert events == stored
    assert [event.data["text"] for event in events if event.kind == "output"] == ["hello", "world"]
    kinds = [event.kind for event in events]
    assert kinds[:2] == ["created", "planned"]
    assert kinds[-1] == "finished"


def test_the_last_mail_is_read_although_the_function_is_over(tmp_path: Path) -> None:
    summary = train(tmp_path, reach_the_goal)
    assert (summary.status, summary.error) == ("succeeded", {})


def test_a_function_without_a_word_is_replaced(tmp_path: Path) -> None:
    waiting: list[Function] = []

    def script(function: Function) -> None:
        if function.spec.label == "1.1.0":
            function.end(Phase.LOST, "killed by signal 9")
            return
        waiting.append(function)
        if len(waiting) == 2:
            for each in waiting:
                reach_the_goal(each)

    summary = train(tmp_path, script)
    assert (summary.status, summary.replacements) == ("succeeded", 1)
    assert set(ScriptedBackend.launchers[0].functions) == {"1.0.0", "1.1.0", "1.1.1"}


def test_functions_that_are_lost_again_and_again_are_told_as_the_platform_tells_it(tmp_path: Path) -> None:
    def script(function: Function) -> None:
        function.end(Phase.LOST, "killed by signal 9")

    summary = train(tmp_path, script)
    assert (summary.status, summary.stop_reason) == ("failed", "worker lost")
    assert "killed by signal 9" in summary.error["message"]


LOCAL_SGD = {"mode": "local_sgd", "period": 5}


@pytest.mark.parametrize(
    ("sync", "setbacks"),
    [
        ({"codec": "int8"}, 1),
        (LOCAL_SGD, 1),
        ({"codec": "int8", "recovery": "fast"}, 1),
        ({**LOCAL_SGD, "recovery": "fast"}, 0),
    ],
)
def test_going_back_to_an_exchange_is_no_reason_to_save_more_often(
    tmp_path: Path, sync: dict[str, object], setbacks: int
) -> None:
    """Four steps are made again; where ranks exchange at every step, that was to a checkpoint."""
    functions: list[Function] = []

    def script(function: Function) -> None:
        function.say(ready(function))
        functions.append(function)

    def listen(event: RunEvent) -> None:
        if event.kind == "round_opened" and event.data["round"] == 0:
            for first, last in ((0, 8), (4, 6)):
                steps = range(first, last)
                done = tuple(StepRecord(step, 0, 0.5, 8, 0.1, 0.05, 0.03, 0.02, ended=1.0 + step) for step in steps)
                functions[0].say(Mail("computing", last, steps=done))
        elif event.kind == "rolled_back":
            again = ready(functions[0])
            functions[0].say(replace(again, ready=replace(again.ready, after_round=0)))
        elif event.kind == "round_opened":
            for function in functions:
                function.say(Mail("leaving", 5, left=Left("goal", 5, 1)))
                function.end()

    assert train(tmp_path, script, listen, sync=sync).status == "succeeded"
    control = wire.unpack(functions[0].store.get(layout.CONTROL), Control)
    assert control.round
    assert (control.round.number, control.setbacks) == (1, setbacks)


def test_a_rank_that_has_begun_anew_is_in_the_log_and_the_summary_says_so(tmp_path: Path) -> None:
    events: list[RunEvent] = []

    def script(function: Function) -> None:
        if function.spec.rank == 1:
            function.say(Mail("computing", 4, rejoined=(Rejoined(4, 0),)))
        reach_the_goal(function)

    summary = train(tmp_path, script, events.append)
    assert summary.recovered_fast
    assert [event.data for event in events if event.kind == "rejoined"] == [
        {"generation": 1, "rank": 1, "incarnation": 0, "step": 4, "donor": 0, "recovery": "fast"}
    ]


def test_a_checkpoint_that_no_rank_can_read_is_not_named_again(tmp_path: Path) -> None:
    def script(function: Function) -> None:
        function.say(ready(function))
        if function.spec.incarnation == 0:
            torn = Failure("CorruptObject", "the digest of part 0 is another one", "", "")
            function.say(Mail("loading", 3, checkpoints=(CheckpointDone(3, 100, 0.1),), failure=torn))
        else:
            function.say(Mail("leaving", 5, left=Left("goal", 5, 1)))
        function.end()

    assert train(tmp_path, script, workers={"count": 1}).status == "succeeded"
    control = wire.unpack(ScriptedBackend.launchers[0].functions["1.0.0"].store.get(layout.CONTROL), Control)
    assert control.round == Round(1, 1, ("uuid-1.0.1",), resume_from="")


def test_what_all_functions_cost_is_in_the_summary_over_all_sessions(tmp_path: Path) -> None:
    def fail(function: Function) -> None:
        function.say(Mail("building", 0, failure=Failure("TaskError", "it broke", "mend it", "")))
        function.end()

    events: list[RunEvent] = []
    first = train(tmp_path, fail, events.append)
    assert (first.status, first.error["message"]) == ("failed", "it broke")
    assert first.cost_usd["total"] == pytest.approx(0.5)
    second = train(tmp_path, reach_the_goal)
    assert (second.status, second.generations) == ("succeeded", 2)
    assert second.cost_usd["total"] == pytest.approx(1.0)
    assert second.wall_seconds > events[-1].time - events[0].time, "and that of the first session, by its log"


def test_a_launch_that_is_refused_is_tried_again(tmp_path: Path) -> None:
    refused: list[str] = []
    events: list[RunEvent] = []

    def script(function: Function) -> None:
        if function.spec.rank == 1 and not refused:
            refused.append(function.spec.label)
            raise CloudError("too many requests")
        reach_the_goal(function)

    assert train(tmp_path, script, events.append).status == "succeeded"
    (record,) = [event.data for event in events if event.kind == "launch_failed"]
    assert (record["rank"], record["detail"]) == (1, "too many requests")


def test_a_platform_that_refuses_a_launch_for_too_long_fails_the_run(tmp_path: Path) -> None:
    def script(function: Function) -> None:
        if function.spec.rank == 1:
            raise CloudError("quota exceeded", "ask for more")
        function.say(Mail("leaving", 0, left=Left("stopped")))
        function.end()

    summary = train(tmp_path, script, start_deadline_s=0.5)
    assert (summary.status, summary.stop_reason) == ("failed", "launch failed")
    assert summary.error["message"] == "rank 1 could not be launched: quota exceeded"
    assert summary.error["hint"] == "ask for more"
    assert summary.failure().exit_code == CloudError.exit_code


def test_a_launch_that_no_later_try_can_mend_fails_the_run_at_once_and_all_is_closed(tmp_path: Path) -> None:
    def script(function: Function) -> None:
        if function.spec.rank == 1:
            raise ConfigError("no credentials", "log in")

    with pytest.raises(ConfigError, match="no credentials"):
        train(tmp_path, script)
    launcher = ScriptedBackend.launchers[0]
    assert launcher.is_closed
    store = launcher.functions["1.0.0"].store
    view = view_of(store)
    assert (view.state, view.error) == ("failed", "no credentials\n  hint: log in")
    assert wire.unpack(store.get(layout.CONTROL), Control).closed
    assert ScriptedBackend.cleaned == ["test"]


def test_a_controller_that_is_succeeded_stops_and_writes_nothing_more(tmp_path: Path) -> None:
    logged = []

    def script(function: Function) -> None:
        """Another controller takes the run just before the round would open."""
        function.say(ready(function))
        control = wire.unpack(function.store.get(layout.CONTROL), Control)
        function.store.put(layout.CONTROL, wire.pack(replace(control, epoch=control.epoch + 1)))
        logged.append(list(read_events(function.store)))

    with pytest.raises(ConfigError, match="another controller has taken over"):
        train(tmp_path, script)
    launcher = ScriptedBackend.launchers[0]
    store = launcher.functions["1.0.0"].store
    assert launcher.is_closed
    control = wire.unpack(store.get(layout.CONTROL), Control)
    assert (control.epoch, control.round, control.closed) == (3, None, False)
    assert list(read_events(store)) == logged[-1]
    assert not store.exists(layout.SUMMARY)
    assert ScriptedBackend.cleaned == []


def test_a_controller_that_is_succeeded_while_its_functions_end_concludes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(launcher: ScriptedLauncher) -> None:
        store = launcher.functions["1.0.0"].store
        control = wire.unpack(store.get(layout.CONTROL), Control)
        store.put(layout.CONTROL, wire.pack(replace(control, epoch=control.epoch + 1)))

    monkeypatch.setattr(ScriptedLauncher, "_do_close", close)
    with pytest.raises(ConfigError, match="another controller has taken over"):
        train(tmp_path, reach_the_goal)
    store = ScriptedBackend.launchers[0].functions["1.0.0"].store
    control = wire.unpack(store.get(layout.CONTROL), Control)
    assert (control.epoch, control.closed) == (2, False)
    assert not store.exists(layout.SUMMARY)
    assert ScriptedBackend.cleaned == []


def test_who_reads_that_a_run_is_finished_finds_the_summary_of_this_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[str, str]] = []
    write = PatientStore.put_if_absent

    def look_after_it(store: PatientStore, key: str, data: bytes) -> str:
        version = write(store, key, data)
        if key.startswith(layout.LOG) and (view := view_of(store)).ended:
            found.append((view.state, Summary.from_json(store.get(layout.SUMMARY)).status))
        return version

    def fail(function: Function) -> None:
        function.say(Mail("building", 0, failure=Failure("TaskError", "it broke", "mend it", "")))
        function.end()

    monkeypatch.setattr(PatientStore, "put_if_absent", look_after_it)
    train(tmp_path, fail)
    train(tmp_path, reach_the_goal)
    assert found == [("failed", "failed"), ("succeeded", "succeeded")]
