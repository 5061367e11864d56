"""`smlt train` from end to end: real workers, as a user starts them."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.conftest import ENDLESS, LINEAR


def test_what_init_makes_trains_as_it_is(smlt, folder):
    assert smlt("init", ".").returncode == 0
    done = smlt("train", "-o", "json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["status"] == "succeeded"
    assert summary["metrics"]["accuracy"] > 0.95
    assert summary["allocation"]["workers"] == 2
    assert summary["model_path"] == str(folder / ".smlt/runs" / summary["run"] / "model.safetensors")
    assert json.loads((folder / ".smlt/runs" / summary["run"] / "summary.json").read_text()) == summary


def test_what_init_makes_for_keras_trains_as_it_is(smlt):
    assert smlt("init", ".", "--framework", "keras").returncode == 0
    done = smlt("train", "--epochs", "2", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 50


def test_a_run_for_people(smlt, linear):
    done = smlt(*LINEAR, "--steps", "20", "--set", "job.params.print_at=3", "--name", "mine")
    assert done.returncode == 0, done.stderr
    figures = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(figures) == ["run", "status", "steps", "loss", "mse", "time", "cost", "model"]
    assert figures["status"] == "succeeded (goal)"
    assert re.fullmatch(r"\$0\.00 \(local: .* of workers' time, price 0\)", figures["cost"])
    assert (linear / figures["model"]).is_file()
    said = done.stderr.splitlines()
    assert re.fullmatch(r"run mine: task.py:Linear on local, .* of files travel", said[0])
    assert {"[rank 0] hello from rank 0", "[rank 1] hello from rank 1"} <= set(said)
    assert "succeeded" in smlt("status", "mine").stdout
    assert "mine" in smlt("runs").stdout
    assert "[rank 1] hello from rank 1" in smlt("logs", "mine").stdout


def test_a_name_is_taken_once_its_run_is_finished(smlt, linear):
    command = (*LINEAR, "--steps", "2", "--name", "mine", "-q")
    first = smlt(*command)
    assert (first.returncode, first.stdout, first.stderr) == (0, "", ""), "-q says nothing but errors"
    again = smlt(*command)
    assert again.returncode == 2
    assert again.stderr.startswith(
        "error: run 'mine' is finished\n  hint: smlt resume mine --epochs N goes on for longer"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train",), "job.task: no task (give `smlt train task.py:Class`"),
        (("train", "tsk.py:Linear"), "there is no file"),
        (("train", "task.py:Linera"), "did you mean 'Linear'?"),
        (("train", "task.py"), "TASK: job.task: 'task.py' names no class"),
        ((*LINEAR, "--epochs", "none"), "--epochs: job.epochs: must be a whole number"),
        ((*LINEAR, "--epochs", "1", "--steps", "1"), "TASK, --epochs, --steps: job: give epochs or steps, not both"),
        ((*LINEAR, "--deadline", "soon"), "--deadline: limits.deadline: not a duration"),
        ((*LINEAR, "--budget", "2eur"), "--budget: limits.budget: not an amount of money"),
        ((*LINEAR, "--memory", "2"), "--memory: workers.memory: not a size of memory"),
        ((*LINEAR, "--name", "a/b"), "--name: job.name: a name has letters"),
        ((*LINEAR, "-b", "moon"), "--backend: backend.name: no backend is called 'moon'"),
        ((*LINEAR, "--set", "backend.moon=1"), "--set: backend.moon: no such key"),
        ((*LINEAR, "-c", "no.toml"), "--config: no.toml: no such file"),
        (("train", "task.py:Linear", "-w", "100"), "100 workers were asked for"),
        ((*LINEAR, "--set", "sync.channel=moon"), "backend 'local' has no channel 'moon'"),
    ],
)
def test_what_cannot_be_begun_exits_2_with_nothing_on_stdout(main, linear, arguments, expected):
    code, out, err = main(*arguments, "-o", "json")
    assert (code, out) == (2, "")
    assert expected in err
    assert "Traceback" not in err


def test_settings_that_are_for_another_backend_are_said(main, linear):
    (linear / "smlt.toml").write_text('[backend]\nname = "lithops"\n[job]\ntask = "task.py:A"')
    assert "no class 'A'" in main("train", "-b", "local")[2]


@pytest.fixture
def broken(folder):
    """`task.py:Broken`, whose first step divides by zero in line 8."""
    (folder / "task.py").write_text(
        "from torch import nn, optim\nfrom torch.utils.data import TensorDataset\nimport torch\n"
        "from smlt.frameworks.torch import TorchTask\n\n\nclass Broken(TorchTask):\n"
        "    training_step = lambda self, model, batch: 1 / 0\n"
        "    build_model = lambda self: nn.Linear(1, 1)\n"
        "    build_optimizer = lambda self, model: optim.SGD(model.parameters(), lr=0.1)\n"
        "    train_data = lambda self: TensorDataset(torch.zeros(64, 1))\n"
    )
    return folder


def test_a_task_that_fails(smlt, broken):
    done = smlt("train", "task.py:Broken", "-w", "1", "-o", "json", "--name", "mine")
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert (summary["status"], summary["error"]["kind"]) == ("failed", "TaskError")
    error = "error: training_step raised ZeroDivisionError: division by zero (task.py:8)\n"
    assert done.stderr.endswith(f"{error}  the traceback: smlt logs mine\n")
    assert "Traceback" not in done.stderr
    log = smlt("logs").stdout
    assert "ZeroDivisionError: division by zero" in log
    assert "failed (TaskError)" in log
    verbose = smlt("train", "task.py:Broken", "-w", "1", "-q", "-v").stderr
    assert verbose.startswith("Traceback")
    assert verbose.endswith(error)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--set", "job.global_batch=1000"), 2, "96 examples, fewer than one global batch of 1000"),
        (("--set", "job.params.nan_at=0"), 1, "the loss is nan at step 0"),
        (("--set", "job.params.exit_at=0"), 1, "the task called exit('that is enough') in rank"),
        (("--runs-dir", "/dev/null"), 2, "a file or a folder of that name is in the way"),
    ],
)
def test_what_shows_once_a_run_begins_is_one_error_with_a_hint(smlt, linear, arguments, code, expected):
    done = smlt(*LINEAR, *arguments)
    assert done.returncode == code
    assert expected in done.stderr
    assert done.stderr.count("error: ") == done.stderr.count("hint: ") == 1
    assert "Traceback" not in done.stderr


def test_a_budget_stops_the_run(smlt, linear):
    price = ("--set", "backend.usd_per_gib_s=1", "--budget", "2usd")
    done = smlt(*LINEAR, *ENDLESS, *price, "--name", "mine")
    assert done.returncode == 3, done.stderr
    assert "stopped (budget)" in done.stdout
    assert "of $2.00" in done.stdout
    assert "to go on: smlt resume mine --budget " in done.stderr


def test_ctrl_c_stops_after_a_checkpoint_and_the_run_goes_on_by_its_name(start, smlt):
    command = start(*LINEAR, *ENDLESS, "--name", "mine")
    command.wait_for("step ")
    command.interrupt()
    command.wait_for("stopping after a checkpoint; Ctrl-C again to stop now")
    code, out, err = command.end()
    assert code == 130
    assert "cancelled" in out
    assert err.endswith("to go on: smlt resume mine\n")
    before = json.loads(smlt("status", "-o", "json").stdout)
    assert before["state"] == "cancelled"
    done = smlt(*LINEAR, "--steps", str(before["checkpoint_step"] + 10), "--name", "mine", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == before["checkpoint_step"] + 10


def test_ctrl_c_twice_stops_now(start):
    command = start(*LINEAR, *ENDLESS, "-o", "json")
    command.wait_for("step ")
    command.interrupt()
    command.wait_for("stopping after")
    command.interrupt()
    code, out, _ = command.end()
    assert code == 130
    assert json.loads(out)["status"] == "cancelled"


def test_a_termination_is_a_first_ctrl_c(start):
    command = start(*LINEAR, *ENDLESS, "-o", "json")
    command.wait_for("step ")
    for _ in range(3):
        command.process.terminate()
    command.wait_for("stopping after")
    code, out, err = command.end()
    assert code == 130
    assert json.loads(out)["status"] == "cancelled"
    assert "stopping now" not in err


def test_a_run_is_watched_from_another_terminal(start, smlt):
    command = start(*LINEAR, *ENDLESS, "--name", "mine")
    command.wait_for("step ")
    watching = start("logs", "mine", "--follow")
    assert "run mine: task.py:Linear on local" in watching.process.stdout.readline()
    command.interrupt()
    command.end()
    code, out, _ = watching.end()
    assert code == 0
    assert out.splitlines()[-1].endswith("  cancelled")
