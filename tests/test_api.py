"""`smlt.train`: what it asks the engine for, what comes back or is raised; real runs of a script and a notebook."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import smlt
from smlt.api import cancelling
from smlt.core.engine import Interrupts
from smlt.core.errors import ConfigError, Interrupted, JobFailed, NonFiniteLoss, TaskError
from smlt.core.summary import Summary
from tests.support.linear import Linear
from tests.support.places import fresh_folder

SUPPORT = Path(__file__).parent / "support"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, in an environment without settings of smlt."""
    return fresh_folder(tmp_path, monkeypatch)


@pytest.fixture
def asked(folder, monkeypatch):
    """Requests that came to a stand-in for the engine, and the summary it answers with."""

    class Asked(list):
        summary = Summary("r", "succeeded", "goal", "local", model_path="/there/model.safetensors")

        @property
        def spec(self):
            return self[-1].spec

    asked = Asked()

    def run(request, registry, *, listener, interrupts):
        asked.append(request)
        return asked.summary

    monkeypatch.setattr("smlt.core.engine.run", run)
    return asked


def test_arguments_become_settings(asked, folder):
    smlt.train(
        "task.py:A", workers=3, memory="2GiB", steps=7, global_batch=32, seed=5, name="n", params={"hidden": 8},
        deadline="30m", budget=2, settings={"train.precision": "bf16", "job.secrets": ["HF"]},
    )  # fmt: skip
    spec = asked.spec
    assert (spec.job.task, spec.job.name, spec.job.steps, spec.job.seed) == ("task.py:A", "n", 7, 5)
    assert (spec.job.global_batch, spec.job.params, spec.job.secrets) == (32, {"hidden": 8}, ("HF",))
    assert (spec.workers.count, spec.workers.memory) == (3, 2048)
    assert (spec.limits.deadline, spec.limits.budget, spec.train.precision) == (1800, 2, "bf16")
    assert (asked[0].folder, asked[0].runs_dir, asked[0].task_class) == (folder, folder / ".smlt/runs", None)


def test_a_class_is_passed_on_with_a_label(asked):
    smlt.train(Linear)
    assert asked[0].task_class is Linear
    assert asked.spec.job.task == "tests.support.linear:Linear"


def test_the_environment_counts_and_the_project_file_only_by_name(asked, folder, monkeypatch):
    (folder / "smlt.toml").write_text("[job]\nseed = 9\nepochs = 3\n")
    monkeypatch.setenv("SMLT_EPOCHS", "4")
    monkeypatch.setenv("SMLT_RUNS_DIR", "elsewhere")
    smlt.train("task.py:A")
    assert (asked.spec.job.epochs, asked.spec.job.seed, asked[0].runs_dir) == (4, 0, folder / "elsewhere")
    smlt.train("task.py:A", config="smlt.toml", steps=2, runs_dir="here")
    assert (asked.spec.job.epochs, asked.spec.job.steps, asked.spec.job.seed) == (None, 2, 9)
    assert asked[1].runs_dir == folder / "here"


def test_every_mistake_is_told_with_the_argument_it_came_from(asked):
    with pytest.raises(ConfigError) as caught:
        smlt.train("task.py:A", workers=0, params={"f": {1}}, settings={"job.epoch": 1})
    assert [str(problem).split(" (")[0] for problem in caught.value.problems] == [
        "smlt.train(params=): job.params: 'f' is a set; params are numbers, text, lists and tables",
        "smlt.train(settings=): job.epoch: no such key",
        "smlt.train(workers=): workers.count: must be 'auto' or at least 1, not 0",
    ]
    assert asked == []


def test_a_result(asked):
    asked.summary = Summary(
        "r", "succeeded", "goal", "local", metrics={"loss": 1.0}, wall_seconds=3.0, cost_usd={"total": 0.5},
        model_path="/there/model.safetensors", weights_sha256="ab",
    )  # fmt: skip
    result = smlt.train("task.py:A")
    assert (result.status, result.metrics, result.cost_usd, result.wall_seconds) == (
        "succeeded", {"loss": 1.0}, 0.5, 3.0,
    )  # fmt: skip
    assert (result.model_path, result.weights_sha256) == (Path("/there/model.safetensors"), "ab")
    assert result.summary is asked.summary


def test_a_run_that_a_limit_stopped_is_a_result_without_a_model(asked):
    asked.summary = Summary("r", "stopped", "deadline", "local")
    result = smlt.train("task.py:A")
    assert (result.status, result.model_path) == ("stopped", None)


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("ConfigError", ConfigError),
        ("TaskError", TaskError),
        ("NonFiniteLoss", NonFiniteLoss),
        ("JobFailed", JobFailed),
        ("StorageError", JobFailed),
    ],
)
def test_a_failed_run_raises(asked, kind, raised):
    error = {"kind": kind, "message": "it broke", "hint": "mend it", "traceback": "Traceback …\nValueError\n"}
    asked.summary = Summary("r", "failed", kind, "local", error=error)
    with pytest.raises(raised, match="it broke\n  hint: mend it") as caught:
        smlt.train("task.py:A")
    assert type(caught.value) is raised
    notes = [] if raised is ConfigError else ["Traceback …\nValueError"]
    assert getattr(caught.value, "__notes__", []) == notes


def test_the_note_of_a_tasks_error_is_the_tasks_own_part(asked):
    traceback = "Traceback …\nValueError\n\nThe above exception was the direct cause of …\n\nTraceback …\nTaskError\n"
    error = {"kind": "TaskError", "message": "it broke", "hint": "", "traceback": traceback}
    asked.summary = Summary("r", "failed", "TaskError", "local", error=error)
    with pytest.raises(TaskError) as caught:
        smlt.train("task.py:A")
    assert caught.value.__notes__ == ["Traceback …\nValueError"]


def test_a_cancelled_run_raises(asked):
    asked.summary = Summary("r", "cancelled", "cancelled", "local", steps=3)
    with pytest.raises(Interrupted, match="cancelled at step 3"):
        smlt.train("task.py:A")


def test_progress_is_shown_where_it_is_asked_for(folder, monkeypatch, capsys):
    from smlt.core.runlog import RunEvent

    def run(request, registry, *, listener, interrupts):
        listener(RunEvent(0.0, "output", {"generation": 1, "rank": 0, "text": "hello"}))
        return Summary("r", "succeeded", "goal", "local")

    monkeypatch.setattr("smlt.core.engine.run", run)
    smlt.train("task.py:A", quiet=False)
    assert capsys.readouterr().err == "[rank 0] hello\n"


def test_ctrl_c_cancels_once_and_twice_and_termination_only_once():
    said = []
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupts = Interrupts()
    with cancelling(interrupts, said.append):
        signal.raise_signal(signal.SIGINT)
        assert interrupts.asked == 1
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.asked == 1
        signal.raise_signal(signal.SIGINT)
        assert interrupts.asked == 2
    assert said == ["stopping after a checkpoint; Ctrl-C again to stop now", "stopping now"]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_signals_are_left_alone():
    handlers = []

    def inside():
        with cancelling(Interrupts(), handlers.append):
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


def test_a_real_run_of_a_file(folder):
    shutil.copy(SUPPORT / "linear.py", folder / "task.py")
    result = smlt.train("task.py:Linear", workers=2, steps=12)
    assert result.status == "succeeded"
    assert result.summary.steps == 12
    assert result.metrics["mse"] < 1
    assert result.model_path.is_file()
    assert result.cost_usd == 0


def test_a_real_run_that_fails_names_the_cause(folder):
    shutil.copy(SUPPORT / "linear.py", folder / "task.py")
    with pytest.raises(smlt.SmltError, match="the user's own mistake") as caught:
        smlt.train("task.py:Linear", workers=2, steps=12, params={"fail_at": 2})
    assert "in compute" in caught.value.__notes__[0]


TASK = """
import torch
from torch import nn, optim
from torch.utils.data import TensorDataset
from smlt.frameworks.torch import TorchTask
import smlt

class Line(TorchTask):
    def build_model(self):
        return nn.Linear(1, 1)
    def build_optimizer(self, model):
        return optim.SGD(model.parameters(), lr=0.1)
    def train_data(self):
        x = torch.linspace(0, 1, 64).reshape(-1, 1)
        return TensorDataset(x, 2 * x)
    def training_step(self, model, batch):
        x, y = batch
        return ((model(x) - y) ** 2).mean()
"""


def test_a_class_of_a_script(folder):
    call = "print(smlt.train(Line, workers=2, epochs=3, settings={'job.global_batch': 16}).summary.steps)"
    (folder / "script.py").write_text(f"{TASK}\nif __name__ == '__main__':\n    {call}\n")
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "12\n"), done.stderr


def test_a_class_of_a_notebook(folder):
    cells = [TASK, "smlt.train(Line, workers=2, epochs=3, global_batch=16).summary.steps"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    assert notebook.cells[1].outputs[0]["data"]["text/plain"] == "12"


def test_interrupting_a_script_stops_the_run_and_raises(folder):
    call = "smlt.train(Line, workers=1, epochs=10**6, quiet=False)"
    (folder / "script.py").write_text(f"{TASK}\nif __name__ == '__main__':\n    {call}\n")
    with subprocess.Popen([sys.executable, "script.py"], stderr=subprocess.PIPE, text=True) as script:
        assert any(line.startswith("step ") for line in script.stderr)
        script.send_signal(signal.SIGINT)
        rest = script.stderr.read()
    assert script.returncode == 1
    assert "smlt.core.errors.Interrupted: run 'line-" in rest
