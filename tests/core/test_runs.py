"""Runs and their names: one that is new, one that goes on, one that is refused; and its summary."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from smlt._version import __version__
from smlt.core import layout, wire
from smlt.core.errors import ConfigError
from smlt.core.job import JobSpec
from smlt.core.messages import RunRecord
from smlt.core.parcel import TaskParcel, make_parcel
from smlt.core.plugins import load_registry
from smlt.core.runlog import RunLog
from smlt.core.runs import OpenRun, open_run
from smlt.core.summary import Summary
from tests.support.linear import Linear

NOON = 1_700_000_000.0
PARCEL = TaskParcel("task.py:Digits", ("torch",))


class Runs:
    """A folder of runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.registry = folder, load_registry()

    def open(
        self, name: str | None = None, parcel: TaskParcel = PARCEL, sync: dict[str, Any] | None = None, **job: Any
    ) -> OpenRun:
        spec = JobSpec.model_validate({"job": {"task": parcel.label, "name": name, **job}, "sync": sync or {}})
        backend = self.registry.backend("local", {})
        return open_run(spec, backend, parcel, self.folder, self.registry, NOON)

    def log(self, run: OpenRun, *events: tuple[str, dict[str, Any]]) -> None:
        log = RunLog(run.store, lambda: NOON)
        for kind, data in events:
            log.append(kind, data)
        log.flush()


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


def finished(status: str) -> tuple[str, dict[str, Any]]:
    return "finished", {"status": status, "stop_reason": "x"}


def test_a_new_run_has_a_record_of_what_it_is(runs: Runs) -> None:
    run = runs.open("digits", seed=4)
    assert (run.name, run.place.run, run.place.preload) == ("digits", "digits", ("torch",))
    assert (runs.folder / "digits").is_dir()
    record = wire.unpack(run.store.get(layout.RECORD), RunRecord)
    assert (record.name, record.task, record.backend) == ("digits", "task.py:Digits", "local")
    assert (record.smlt_version, record.created) == (__version__, NOON)
    assert JobSpec.from_plain(record.job) == run.spec
    assert run.before.generation == 0


def test_runs_without_a_name_are_called_by_task_and_time_and_never_clash(runs: Runs) -> None:
    names = [runs.open().name for _ in range(3)]
    assert names[0].startswith("digits-2023")
    assert names == [names[0], f"{names[0]}-2", f"{names[0]}-3"]


@pytest.mark.parametrize(
    ("label", "stem"),
    [("pkg.mod:MyNet", "mynet"), ("__main__:Outer.Inner", "inner"), ("a.py:Ünicode_9", "nicode-9"), ("a.py:_", "run")],
)
def test_names_are_made_of_plain_letters(runs: Runs, label: str, stem: str) -> None:
    assert runs.open(parcel=TaskParcel(label, ())).name.startswith(f"{stem}-20")


@pytest.mark.parametrize("status", ["failed", "stopped", "cancelled"])
def test_the_same_name_goes_on_with_an_unfinished_run(runs: Runs, status: str) -> None:
    first = runs.open("digits")
    runs.log(
        first,
        ("launched", {"generation": 3, "rank": 0, "incarnation": 0}),
        ("spent", {"usd": 0.5, "function_s": 20.0}),
        finished(status),
    )
    again = runs.open("digits", epochs=7)
    assert again.name == "digits"
    assert (again.before.generation, again.before.spent_usd, again.before.function_s) == (3, 0.5, 20.0)
    assert again.spec.job.epochs == 7


def test_a_run_whose_controller_was_killed_goes_on_too(runs: Runs) -> None:
    runs.log(runs.open("digits"), ("launched", {"generation": 1, "rank": 0, "incarnation": 0}))
    again = runs.open("digits")
    assert again.before.generation == 1


def test_a_finished_run_is_refused(runs: Runs) -> None:
    runs.log(runs.open("digits"), finished("succeeded"))
    with pytest.raises(ConfigError, match="'digits' is finished") as caught:
        runs.open("digits")
    assert "choose another --name" in caught.value.hint


def test_another_task_s_run_is_refused(runs: Runs) -> None:
    runs.open("digits")
    with pytest.raises(ConfigError, match=r"'digits' trains task\.py:Digits, not other\.py:Digits"):
        runs.open("digits", TaskParcel("other.py:Digits", ()))


# What travels


def test_a_file_travels_as_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("from smlt.frameworks.torch import TorchTask\nclass Digits(TorchTask): ...\n")
    parcel = make_parcel(JobSpec.model_validate({"job": {"task": "task.py:Digits"}}), tmp_path, tmp_path / "runs", None)
    assert (parcel.label, parcel.preload) == ("task.py:Digits", ("torch",))
    assert (parcel.module, parcel.class_name, parcel.payload) == ("smlt_task.task", "Digits", b"")
    assert len(parcel.sha256) == 64


def test_a_class_travels_as_it_is(tmp_path: Path) -> None:
    parcel = make_parcel(JobSpec.model_validate({"job": {"task": "x:Linear"}}), tmp_path, tmp_path, Linear)
    assert (parcel.label, parcel.preload) == ("tests.support.linear:Linear", ("numpy",))
    assert (parcel.bundle, parcel.sha256) == (b"", "")
    assert parcel.payload


def test_a_class_of_a_user_s_module_travels_whole(tmp_path: Path) -> None:
    """A worker has neither this process's path nor its modules."""
    parcel = make_parcel(JobSpec.model_validate({"job": {"task": "x:Linear"}}), tmp_path, tmp_path, Linear)
    code = "import sys, cloudpickle; print(cloudpickle.load(sys.stdin.buffer)().adapt().prepare)"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, input=parcel.payload, capture_output=True, check=True, cwd=tmp_path)
    assert b"LinearTraining.prepare" in done.stdout
    assert cloudpickle.list_registry_pickle_by_value() == set()


def test_the_folder_of_the_runs_does_not_travel(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("class Digits: ...\n")
    (tmp_path / "runs" / "old").mkdir(parents=True)
    spec = JobSpec.model_validate({"job": {"task": "task.py:Digits"}})
    before = make_parcel(spec, tmp_path, tmp_path / "runs", None)
    (tmp_path / "runs" / "old" / "model.safetensors").write_bytes(b"large")
    assert make_parcel(spec, tmp_path, tmp_path / "runs", None) == before


def test_a_class_that_cannot_travel_is_refused(tmp_path: Path) -> None:
    spec = JobSpec.model_validate({"job": {"task": "x:X"}})

    class Stuck(Linear):
        lock = threading.Lock()

    with pytest.raises(ConfigError, match="cannot be sent to workers") as caught:
        make_parcel(spec, tmp_path, tmp_path, Stuck)
    assert "file.py:Class" in caught.value.hint
    with pytest.raises(ConfigError, match="builtins:dict is not a task"):
        make_parcel(spec, tmp_path, tmp_path, dict)


# The summary


def test_a_summary_is_read_back_and_strict_json() -> None:
    summary = Summary(
        "digits",
        "succeeded",
        "goal",
        "local",
        steps=3,
        metrics={"loss": 0.5, "auc": float("nan")},
        handover_stall_seconds=(0.1, 0.2),
        error={"message": "x"},
    )
    plain = json.loads(summary.to_json(), parse_constant=pytest.fail)
    assert plain["metrics"] == {"loss": 0.5, "auc": None}
    assert list(plain) == list(Summary.__dataclass_fields__)
    assert Summary.from_json(summary.to_json().replace("null", "0.25")).metrics == {"loss": 0.5, "auc": 0.25}


def test_a_summary_of_a_newer_or_an_older_smlt_is_read() -> None:
    text = json.dumps({"run": "a", "status": "failed", "stop_reason": "b", "backend": "c", "warp_factor": 9})
    assert Summary.from_json(text) == Summary("a", "failed", "b", "c")


@pytest.mark.parametrize(("changed", "named"), [({"seed": 1}, "seed"), ({"global_batch": 32}, "global_batch")])
def test_another_sequence_of_batches_does_not_go_on_under_the_same_name(
    runs: Runs, changed: dict[str, Any], named: str
) -> None:
    runs.open("digits")
    with pytest.raises(ConfigError, match=rf"begun with another \[job\]\.{named}"):
        runs.open("digits", **changed)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ({}, {"mode": "local_sgd"}, "mode"),
        ({"mode": "local_sgd"}, {"mode": "every_step"}, "mode"),
        ({"mode": "local_sgd"}, {"mode": "local_sgd", "fragments": 5}, "fragments"),
    ],
)
def test_a_state_of_another_kind_does_not_go_on_under_the_same_name(
    runs: Runs, before: dict[str, Any], after: dict[str, Any], named: str
) -> None:
    runs.open("digits", sync=before)
    with pytest.raises(ConfigError, match=rf"begun with another \[sync\]\.{named},? ?"):
        runs.open("digits", sync=after)


def test_a_run_goes_on_for_longer_and_with_what_was_mended(runs: Runs) -> None:
    runs.open("digits", epochs=2, params={"rate": 1e9})
    again = runs.open("digits", epochs=5, params={"rate": 0.1}, sync={"mode": "every_step", "codec": "int8"})
    assert again.spec.job.epochs == 5


def test_local_sgd_may_go_on_with_other_rates(runs: Runs) -> None:
    local = {"mode": "local_sgd", "fragments": 2}
    runs.open("digits", sync=local)
    assert runs.open("digits", sync={**local, "outer_momentum": 0.0, "period": 8}).spec.sync.period == 8
