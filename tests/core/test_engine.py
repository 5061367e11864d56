"""Whole runs on the local backend: the course does not depend on how many work, and what goes wrong is told."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from smlt.core import checkpoint, layout
from smlt.core.engine import run
from smlt.core.errors import ConfigError
from smlt.core.runlog import view_of
from smlt.core.summary import Summary
from tests.support.engines import EPOCHS, STEPS, Runs
from tests.support.linear import Linear


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_run_succeeds_and_says_what_it_came_to(trained: dict[int, tuple[Summary, Runs]], workers: int) -> None:
    summary, runs = trained[workers]
    assert (summary.run, summary.status, summary.stop_reason, summary.backend) == (
        "linear",
        "succeeded",
        "goal",
        "local",
    )
    assert (summary.steps, summary.epochs, summary.generations, summary.handovers) == (STEPS, EPOCHS, 1, 0)
    assert summary.allocation["workers"] == workers
    assert summary.metrics["loss"] < 1e-3
    assert summary.metrics["mse"] < 1e-3
    assert summary.cost_usd["total"] == 0.0
    assert summary.error == {}
    assert runs.steps() == list(range(STEPS))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_a_run_leaves_is_whole(trained: dict[int, tuple[Summary, Runs]], workers: int) -> None:
    summary, runs = trained[workers]
    store = runs.store("linear")
    assert Summary.from_json(store.get(layout.SUMMARY)) == summary
    lines = store.get(layout.EVENTS).decode().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [event.kind for event in runs.events]
    assert view_of(store).state == "succeeded"
    weights = load_file(summary.model_path)
    assert np.allclose(weights["w"], [1.0, 2.0, 3.0, 4.0], atol=0.01)
    assert summary.weights_sha256 == checkpoint.sha256_of(weights)
    manifest = checkpoint.read_manifest(store, checkpoint.latest_manifest(store))
    assert (manifest.cursor.step, manifest.world_size) == (STEPS, workers)
    state = checkpoint.read_state(store, manifest)
    assert summary.state_sha256 == checkpoint.sha256_of(state.arrays, state.extra)


def test_the_course_does_not_depend_on_the_number_of_workers(trained: dict[int, tuple[Summary, Runs]]) -> None:
    losses = {}
    for workers, (_, runs) in trained.items():
        items = [item for event in runs.events if event.kind == "steps" for item in event.data["items"]]
        losses[workers] = [item["loss"] for item in items]
    assert np.allclose(losses[2], losses[1], rtol=1e-6)
    assert np.allclose(losses[3], losses[1], rtol=1e-6)


def test_the_same_run_again_is_the_same_bits(undisturbed: Summary, runs: Runs) -> None:
    again = runs.train()
    assert again.state_sha256 == undisturbed.state_sha256
    assert again.weights_sha256 == undisturbed.weights_sha256
    assert runs.train(job={"seed": 1}).state_sha256 != again.state_sha256


def test_a_target_ends_a_run_early(runs: Runs) -> None:
    summary = runs.train(job={"target": {"metric": "mse", "at_most": 1.0}, "keep_best": "mse"})
    assert (summary.status, summary.stop_reason) == ("succeeded", "target")
    assert 0 < summary.steps < STEPS
    assert summary.metrics["mse"] <= 1.0
    best, final = (checkpoint.read_arrays(runs.store(summary.run), key) for key in (layout.BEST_MODEL, layout.MODEL))
    assert best["w"].tolist() == final["w"].tolist()
    assert summary.best == {
        "step": summary.steps,
        "value": summary.metrics["mse"],
        "model_path": str(runs.runs_dir / summary.run / layout.BEST_MODEL),
    }


def test_what_workers_print_is_in_the_log(runs: Runs) -> None:
    runs.train(job={"params": {"print_at": 3}})
    printed = [(event.data["rank"], event.data["text"]) for event in runs.events if event.kind == "output"]
    assert sorted(printed) == [(0, "hello from rank 0"), (1, "hello from rank 1")]


@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        ({"fail_at": 3}, "TaskError", "the user's own mistake"),
        ({"crash_at": 3}, "JobFailed", "RuntimeError: nobody expected this"),
        ({"nan_at": 3}, "NonFiniteLoss", "the loss is nan at step 3; the step was not applied"),
    ],
)
def test_a_task_that_fails_is_told_and_nothing_of_the_step_remains(
    runs: Runs, params: dict[str, int], kind: str, message: str
) -> None:
    summary = runs.train(job={"params": params, "name": "broken", "checkpoint_every": "1step"})
    assert (summary.status, summary.stop_reason, summary.error["kind"]) == ("failed", kind, kind)
    assert message in summary.error["message"]
    assert "Traceback" in summary.error["traceback"]
    assert (summary.steps, summary.model_path) == (3, "")
    assert checkpoint.valid_steps(runs.store("broken"))[-1] in (2, 3), "the last may have been half written"
    assert runs.view("broken").state == "failed"


def test_a_run_that_failed_goes_on_by_name_once_it_is_mended(undisturbed: Summary, runs: Runs) -> None:
    runs.train(job={"params": {"fail_at": 9}, "name": "broken", "checkpoint_every": "4steps"})
    newest = checkpoint.valid_steps(runs.store("broken"))[-1]
    assert newest in (4, 8), "the last may have been half written"
    mended = runs.train(job={"name": "broken"})
    assert (mended.status, mended.steps, mended.generations) == ("succeeded", STEPS, 2)
    assert runs.steps() == list(range(newest, STEPS))
    assert mended.state_sha256 == undisturbed.state_sha256
    with pytest.raises(ConfigError, match="'broken' is finished"):
        runs.train(job={"name": "broken"})


def test_a_run_goes_on_with_another_number_of_workers(undisturbed: Summary, runs: Runs) -> None:
    runs.train(job={"params": {"fail_at": 9}, "name": "grown", "checkpoint_every": "4steps"})
    grown = runs.train(job={"name": "grown"}, workers={"count": 3})
    assert (grown.status, grown.allocation["workers"]) == ("succeeded", 3)
    assert runs.steps() == list(range(8, STEPS))
    assert grown.metrics == pytest.approx(undisturbed.metrics, rel=1e-6)


def test_a_class_given_in_python_trains_to_the_same_bits(undisturbed: Summary, runs: Runs) -> None:
    summary = run(replace(runs.request(), task_class=Linear), runs.registry)
    assert summary.state_sha256 == undisturbed.state_sha256


def test_a_missing_module_is_told_by_its_name(runs: Runs) -> None:
    task = runs.folder / "task.py"
    task.write_text("import not_there\n" + task.read_text().replace("from __future__ import annotations\n", ""))
    summary = runs.train()
    assert (summary.status, summary.error["kind"]) == ("failed", "TaskError")
    assert "imports 'not_there'" in summary.error["message"]
    assert summary.steps == 0


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"workers": {"count": 17}}, "17 workers were asked for, at most 16"),
        ({"job": {"task": "tsak.py:Linear"}}, "no file"),
        ({"sync": {"channel": "pigeon"}}, "no channel 'pigeon'"),
    ],
)
def test_what_cannot_begin_leaves_no_run(runs: Runs, sections: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        runs.train(**sections)
    assert not runs.runs_dir.exists() or list(runs.runs_dir.iterdir()) == []


def test_data_smaller_than_a_batch_are_told(runs: Runs) -> None:
    summary = runs.train(job={"global_batch": 97})
    assert (summary.status, summary.error["kind"]) == ("failed", "ConfigError")
    assert "96 examples, fewer than one global batch of 97" in summary.error["message"]
