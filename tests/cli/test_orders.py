"""`smlt scale` and `smlt cancel`: what they do to a run that another process drives."""

from __future__ import annotations

import json

from smlt.testing.backend import eventually
from tests.cli.conftest import ENDLESS, LINEAR


def test_a_run_is_scaled_up_and_down_without_a_stop(start, smlt):
    command = start(*LINEAR, *ENDLESS, "--name", "mine")
    for workers, before in ((3, 2), (1, 3)):
        command.wait_for("step ")
        done = smlt("scale", "mine", "--workers", str(workers), "-o", "json")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert (answer["run"], answer["workers"], answer["workers_before"]) == ("mine", workers, before)
        command.wait_for(f"asked to scale to {workers} worker")
        command.wait_for("training")
    eventually(lambda: "1 of 1 up" in smlt("status", "mine").stdout, 60, "its log says so")
    assert "mine has 1 worker already" in smlt("scale", "mine", "-w", "1").stdout
    command.interrupt()
    out = command.end()[1]
    assert "cancelled" in out
    summary = json.loads(smlt("status", "-o", "json").stdout)["summary"]
    assert (summary["generations"], summary["handovers"]) == (3, 2)
    assert summary["allocation"]["workers"] == 1


def test_what_a_run_cannot_have_is_refused_and_logged(start, smlt):
    command = start(*LINEAR, *ENDLESS, "--name", "mine", "--set", "job.global_batch=8")
    command.wait_for("step ")
    done = smlt("scale", "mine", "-w", "9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: run 'mine': this run can have 1 to 8 workers\n"
    command.wait_for("asked to scale to 9 workers, which was refused: this run can have 1 to 8 workers")
    assert "refused" in smlt("logs", "mine").stdout


def test_a_run_is_cancelled_from_elsewhere(start, smlt):
    command = start(*LINEAR, *ENDLESS, "--name", "mine", "-o", "json")
    command.wait_for("step ")
    done = smlt("cancel", "mine")
    assert (done.returncode, done.stdout) == (0, "mine stops after a checkpoint: smlt status mine\n"), done.stderr
    code, out, _ = command.end()
    summary = json.loads(out)
    assert (code, summary["status"]) == (130, "cancelled")
    assert json.loads(smlt("status", "-o", "json").stdout)["checkpoint_step"] == summary["steps"]
    again = smlt("cancel", "mine")
    assert again.returncode == 2
    assert again.stderr.startswith("error: run 'mine' is over: cancelled\n  hint: smlt resume mine")


def test_a_run_is_cancelled_at_once(start, smlt, linear):
    """Its workers are held in a step, and come to no checkpoint."""
    command = start(*LINEAR, "--name", "mine", "--set", "job.params.hold_at=0", "--set", f"job.params.folder={linear}")
    command.wait_for("training")
    done = smlt("cancel", "mine", "--now", "-o", "json")
    assert json.loads(done.stdout)["at_once"] is True
    command.wait_for("asked to stop at once")
    (linear / "go").touch()
    assert command.end()[0] == 130
    assert json.loads(smlt("status", "-o", "json").stdout)["checkpoint_step"] is None


def test_who_misspells_a_run_is_helped(main, linear):
    for verb in (("cancel",), ("scale", "-w", "2")):
        code, _, err = main(verb[0], "mine", *verb[1:])
        assert code == 2
        assert "there are no runs in" in err
    assert main("scale", "mine", "-w", "0")[0] == 2
