"""`smlt train --detach` and `smlt attach`: runs that no terminal drives."""

from __future__ import annotations

import json
import signal
from contextlib import suppress

import psutil
import pytest

from smlt.testing.backend import eventually
from tests.cli.conftest import ENDLESS, LINEAR


@pytest.fixture
def detach(smlt, linear):
    """Start a run in the background; in the end none is left."""
    found = []

    def detach(*arguments):
        done = smlt(*arguments, "--detach", "-o", "json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        found.append(psutil.Process(document["pid"]))
        return document

    yield detach
    for process in found:
        with suppress(psutil.NoSuchProcess):
            for each in (*process.children(recursive=True), process):
                each.kill()
    assert not psutil.wait_procs(found, timeout=60)[1]


def test_a_run_goes_on_in_the_background_until_it_is_cancelled(detach, smlt, linear):
    document = detach(*LINEAR, *ENDLESS, "--name", "mine")
    assert (document["run"], document["state"]) == ("mine", "running")
    process = psutil.Process(document["pid"])
    assert psutil.Process().pid not in [parent.pid for parent in process.parents()]
    assert smlt("train", "task.py:Linear", "--name", "mine").returncode == 2
    assert smlt("cancel", "mine").returncode == 0
    ended = smlt("attach", "mine", "-o", "json")
    assert (ended.returncode, json.loads(ended.stdout)["status"]) == (130, "cancelled")
    eventually(lambda: not process.is_running(), 60, "it has left")
    log = linear / ".smlt/runs/mine/logs/controller.txt"
    assert document["log"] == str(log)
    assert log.read_text().startswith("run mine: task.py:Linear on local")
    assert log.read_text().endswith("to go on: smlt resume mine\n")


def test_what_is_said_of_it(smlt, linear):
    done = smlt(*LINEAR, "--steps", "20", "--name", "mine", "--detach")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "mine is under way in the background",
        "  follow it: smlt attach mine",
        "  stop it:   smlt cancel mine",
    ]
    assert done.stderr.splitlines()[0].startswith("run mine: task.py:Linear on local")
    attached = smlt("attach")
    assert attached.returncode == 0, attached.stderr
    assert "succeeded (goal)" in attached.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--epochs", "none"), 2, "must be a whole number"),
        (("--runs-dir", "/dev/null"), 2, "a run cannot be kept in /dev/null"),
        (("--set", "job.global_batch=1000"), 2, "96 examples, fewer than one global batch of 1000"),
        (("--set", "job.params.fail_at=0"), 1, "the user's own mistake"),
        (("--budget", "0.0000001usd", "--set", "backend.usd_per_gib_s=1"), 3, "to go on: smlt resume"),
    ],
)
def test_what_fails_to_begin_is_said_as_train_says_it(smlt, linear, arguments, code, expected):
    done = smlt(*LINEAR, *arguments, "--detach")
    assert done.returncode == code
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert "under way" not in done.stdout


def test_a_finished_name_is_refused(smlt, linear):
    command = (*LINEAR, "--steps", "2", "--name", "mine", "-q")
    assert smlt(*command).returncode == 0
    done = smlt(*command, "--detach")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: run 'mine' is finished\n  hint: smlt resume mine --epochs N goes on")
    assert smlt("resume", "mine", "--steps", "4", "--detach", "-q").returncode == 0
    assert smlt("attach", "mine", "-q").returncode == 0
    assert json.loads(smlt("status", "-o", "json").stdout)["step"] == 4


def test_ctrl_c_before_it_is_under_way_stops_it(start, smlt, linear):
    command = start(*LINEAR, "--set", "job.params.hold_at=0", "--set", f"job.params.folder={linear}", "--detach")
    command.wait_for("training")
    command.interrupt()
    (linear / "go").touch()
    code, out, _ = command.end()
    assert code == 130
    assert "cancelled" in out


def test_who_attaches_sees_the_run_go_on_and_leaves_it_so(detach, start, smlt):
    detach(*LINEAR, *ENDLESS, "--name", "mine")
    command = start("attach", "mine")
    command.wait_for("step ")
    command.interrupt()
    code, out, err = command.end()
    assert (code, out) == (130, "")
    assert err.endswith("mine goes on; to stop it: smlt cancel mine\n")
    watching = start("attach", "mine", "-o", "json")
    assert smlt("cancel", "mine").returncode == 0
    code, out, _ = watching.end()
    assert (code, json.loads(out)["status"]) == (130, "cancelled")


def test_a_run_whose_controller_was_killed_is_said_to_be_nobody_s(detach, smlt):
    process = psutil.Process(detach(*LINEAR, *ENDLESS, "--name", "mine")["pid"])
    process.send_signal(signal.SIGKILL)
    done = smlt("attach", "mine")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody drives run 'mine': its controller is gone\n  hint: go on with it: smlt resume mine" in done.stderr


def test_a_run_whose_controller_was_killed_goes_on_by_resume_and_only_by_one(detach, smlt):
    slow = ("--steps", "100000", "--set", "job.params.slow_s=0.1", "--set", "job.checkpoint_every=5steps")
    process = psutil.Process(detach(*LINEAR, *slow, "--name", "mine")["pid"])
    process.send_signal(signal.SIGKILL)
    detach("resume", "mine")
    again = smlt("resume", "mine")
    assert (again.returncode, again.stdout) == (2, "")
    assert "run 'mine' is running already" in again.stderr
    assert smlt("cancel", "mine").returncode == 0
    done = smlt("attach", "mine", "-o", "json")
    assert done.returncode == 130, done.stderr
    events = json.loads(smlt("logs", "mine", "-o", "json").stdout)["events"]
    steps = {item["step"] for event in events if event["kind"] == "steps" for item in event["items"]}
    assert steps == set(range(json.loads(done.stdout)["steps"]))


def test_the_background_holds_none_of_the_callers_files(smlt, linear):
    """Who captures the output gets its end at once, though the run goes on."""
    command = [*LINEAR, "--steps", "50", "--set", "job.params.slow_s=0.1", "--name", "mine", "--detach"]
    done = smlt(*command)
    assert done.returncode == 0
    state = json.loads(smlt("status", "-o", "json").stdout)["state"]
    assert state in ("running", "starting"), "it returned before the end"
    assert smlt("attach", "-q").returncode == 0
