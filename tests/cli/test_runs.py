"""Runs on disk as `smlt runs`, `smlt status` and `smlt logs` see them; the runs are written here, none is trained."""

from __future__ import annotations

import json
import time

import pytest

from smlt.cli.logs import print_log
from smlt.core import layout, wire
from smlt.core.messages import Control, RunRecord
from smlt.core.plugins import load_registry
from smlt.core.runlog import RunLog
from smlt.core.storage import StoreSpec
from smlt.core.summary import Summary

NOON = 1_800_000_000.0


class Writer:
    """Writes the log of a run by a clock that is set."""

    def __init__(self, folder, name, now):
        self.now = now
        self.name = name
        place = folder / ".smlt" / "runs" / name
        place.mkdir(parents=True)
        self.store = load_registry().open_store(StoreSpec("file", place.as_uri()))
        record = RunRecord(name, "task.py:Linear", "local", "0.1.0", now, {})
        self.store.put(layout.RECORD, wire.pack(record))
        self.log = RunLog(self.store, lambda: self.now)

    def events(self, *events):
        """Append (seconds since the last event, kind, data)."""
        for seconds, kind, data in events:
            self.now += seconds
            self.log.append(kind, data)
        self.log.flush()

    def start(self):
        sync = {"mode": "every_step", "codec": "fp32", "channel": "shared_memory", "period": 1}
        created = {"run": self.name, "backend": "local", "task": "task.py:Linear", "epochs": 2, "bundle_bytes": 0}
        self.events(
            (0, "created", {**created, "deadline_s": 60.0, "budget_usd": None}),
            (0, "planned", {"allocation": {"workers": 2, "memory_mib": 1024, "sync": sync}, "reason": "as asked"}),
            (0, "state", {"state": "starting"}),
            *[(0, "launched", {"generation": 1, "rank": rank, "incarnation": 0}) for rank in range(2)],
            *[(0.5, "ready", {"generation": 1, "rank": rank, "total_steps": 8, "seconds": 0.5}) for rank in range(2)],
            (0, "state", {"state": "running"}),
        )

    def steps(self, first, last, each_s=0.5):
        for step in range(first, last):
            item = {"step": step, "epoch": step // 4, "loss": 1 / (step + 1), "examples": 64, "seconds": each_s}
            self.events((each_s, "steps", {"generation": 1, "items": [item]}))

    def finish(self, status="succeeded", reason="goal", **more):
        self.events(
            (0, "evaluated", {"step": 8, "epoch": 1, "metrics": {"mse": 0.25}, "seconds": 0.1}),
            (0, "spent", {"usd": 0.0, "function_s": 9.0}),
            (0, "finished", {"status": status, "stop_reason": reason, "model_path": f"/there/{self.name}"}),
        )
        summary = Summary(self.name, status, reason, "local", steps=8, wall_seconds=5.0, **more)
        self.store.put(layout.SUMMARY, summary.to_json().encode())


@pytest.fixture
def write(folder):
    return lambda name, now=NOON: Writer(folder, name, now)


@pytest.fixture
def finished(write):
    writer = write("done")
    writer.start()
    writer.steps(0, 8)
    writer.finish()
    return writer


def test_no_runs(main, folder):
    assert main("runs") == (0, f"no runs in {folder}/.smlt/runs\n", "")
    for verb in ("status", "logs"):
        code, out, err = main(verb)
        assert (code, out) == (2, "")
        assert "there are no runs in" in err


def test_runs_are_listed_latest_first(main, finished, write, folder):
    (folder / ".smlt/runs/no-run").mkdir()
    write("later", NOON + 50).start()
    code, out, _ = main("runs")
    rows = out.splitlines()
    assert code == 0
    assert rows[2].startswith("later")
    assert rows[3].split()[:5] == ["done", "succeeded", "local", "8", "0.125"]
    assert "mse 0.25" in rows[3]
    assert len(rows) == 4


def test_a_run_that_cannot_be_read_hides_no_other(main, finished, write):
    write("strange").store.put(layout.RECORD, b"?")
    code, out, err = main("runs")
    assert code == 0
    assert "done" in out
    assert "strange cannot be read: 'run' of the run is damaged: not a message of smlt" in err


def test_runs_as_json(main, finished):
    code, out, _ = main("runs", "-o", "json")
    (run,) = json.loads(out)["runs"]
    assert code == 0
    assert run["run"] == "done"
    assert run["state"] == "succeeded"
    assert run["seconds"] == 5.0
    assert run["metrics"] == {"mse": 0.25}


def test_status_of_a_finished_run(main, finished):
    code, out, _ = main("status")
    assert code == 0
    assert dict(line.split(maxsplit=1) for line in out.splitlines()) == {
        "run": "done",
        "state": "succeeded",
        "task": "task.py:Linear on local",
        "progress": "step 8 of 8, epoch 2 of 2",
        "loss": "0.125",
        "mse": "0.25",
        "time": "5.0 s of 1 m 00 s",
        "cost": "$0.00 (local: 9.0 s of workers' time, price 0)",
        "model": "/there/done",
    }


def test_status_as_json_holds_the_summary(main, finished):
    _, out, _ = main("status", "done", "-o", "json")
    document = json.loads(out)
    assert document["state"] == "succeeded"
    assert document["summary"]["wall_seconds"] == 5.0


def test_a_run_is_looked_up_by_name(main, finished, write):
    write("later", NOON + 50).start()
    assert "done" in main("status", "done")[1]
    assert "later" in main("status")[1]
    for name in ("dome", "../done", "..", ""):
        code, _, err = main("status", name)
        assert code == 2
        assert f"no run is called {name!r}" in err
    assert "did you mean 'done'?" in main("status", "dome")[2]


def test_a_run_with_news_is_running(main, write):
    write("now", time.time()).start()
    assert "running\n" in main("status")[1]


def test_a_run_without_news_is_doubted(main, write):
    writer = write("quiet", NOON - 1e9)
    writer.start()
    assert "interrupted? (running, but no news for" in main("status")[1]
    code, _, err = main("logs")
    assert code == 0
    assert "quiet is interrupted?" in err


def test_a_run_whose_controller_left_without_finishing_is_interrupted(main, write):
    writer = write("left", time.time())
    writer.start()
    writer.store.put(layout.CONTROL, wire.pack(Control(epoch=1, closed=True)))
    assert json.loads(main("status", "-o", "json")[1])["state"] == "interrupted"


def test_a_failed_run_says_why(main, write):
    writer = write("bad")
    writer.start()
    failure = {"rank": 1, "kind": "TaskError", "message": "it broke", "hint": "mend it"}
    own = "Traceback:\n  task.py\nValueError: it"
    traceback = f"{own}\n\nThe above exception was the direct cause of the following exception:\n\nours"
    writer.events((1, "failed", {**failure, "traceback": traceback}))
    writer.finish("failed", "TaskError")
    out = main("status")[1]
    assert "error     it broke\n            hint: mend it" in out
    log = main("logs")[1]
    assert "rank 1 failed: it broke" in log
    assert "ValueError: it" in log
    assert "ours" not in log


def test_the_runs_folder_comes_from_flag_or_variable(main, finished, folder, monkeypatch):
    monkeypatch.chdir("/")
    assert "done" in main("runs", "--runs-dir", str(folder / ".smlt/runs"))[1]
    monkeypatch.setenv("SMLT_RUNS_DIR", str(folder / ".smlt/runs"))
    assert "done" in main("status")[1]


def test_logs_tell_what_happened(main, finished):
    finished.events((0, "output", {"generation": 1, "rank": 1, "text": "hello"}))
    code, out, err = main("logs", "done")
    said = [line.split("  ", 1)[1] for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert said == [
        "run done: task.py:Linear on local",
        "plan: 2 workers of 1.0 GiB, every_step over shared_memory (as asked)",
        "starting workers",
        "launched rank 0 of generation 1",
        "launched rank 1 of generation 1",
        "rank 0 is ready after 500 ms",
        "rank 1 is ready after 500 ms",
        "training",
        "step 1 of 8, epoch 1 of 2, loss 1, 128 examples/s, 1.5 s",
        "step 3 of 8, epoch 1 of 2, loss 0.3333, 128 examples/s, 2.5 s",
        "step 5 of 8, epoch 2 of 2, loss 0.2, 128 examples/s, 3.5 s",
        "step 7 of 8, epoch 2 of 2, loss 0.1429, 128 examples/s, 4.5 s",
        "evaluated at step 8: mse 0.25 (100 ms)",
        "succeeded (goal)",
        "[rank 1] hello",
    ]


def test_logs_as_json_are_the_events(main, finished):
    code, out, err = main("logs", "done", "-o", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert (document["run"], document["state"]) == ("done", "succeeded")
    assert [event["kind"] for event in document["events"]][:2] == ["created", "planned"]
    assert main("logs", "done", "-f", "-o", "json")[0] == 2


def test_following_ends_when_the_run_does(capsys, write):
    writer = write("live")
    writer.start()
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 2:
            writer.steps(0, 1)
        if len(naps) == 3:
            writer.finish()

    print_log(writer.store, follow=True, sleep=nap)
    out = capsys.readouterr().out.splitlines()
    assert len(naps) == 3
    assert out[-1].endswith("succeeded (goal)")
    assert sum("step 1 of 8" in line for line in out) == 1


def test_following_a_run_that_goes_on_after_a_stop(capsys, write):
    writer = write("again")
    writer.start()
    writer.finish("stopped", "deadline")
    writer.start()
    naps = []

    def nap(seconds):
        naps.append(seconds)
        writer.finish()

    print_log(writer.store, follow=True, sleep=nap)
    assert len(naps) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("succeeded (goal)")
