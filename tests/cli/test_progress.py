"""What is shown while a run lasts: fed with events, on a terminal of ours and without one."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from smlt.cli.lines import EventLines
from smlt.cli.progress import Bar, Plain, Quiet, progress_for
from smlt.core.runlog import RunEvent

SYNC = {"mode": "every_step", "codec": "fp32", "channel": "shared_memory", "period": 1}


def step(number: int, time: float) -> RunEvent:
    item = {"step": number, "epoch": 0, "loss": 0.5, "examples": 64, "seconds": 0.5}
    return RunEvent(time, "steps", {"generation": 1, "items": [item]})


CREATED = {
    "run": "r",
    "backend": "local",
    "task": "task.py:A",
    "epochs": 1,
    "bundle_bytes": 0,
    "deadline_s": 60.0,
    "budget_usd": 2.0,
}
START = [
    RunEvent(100.0, "created", CREATED),
    RunEvent(100.0, "planned", {"allocation": {"workers": 2, "memory_mib": 1024, "sync": SYNC}, "reason": "so"}),
    RunEvent(100.0, "state", {"state": "starting"}),
    RunEvent(101.0, "ready", {"generation": 1, "rank": 0, "total_steps": 20, "seconds": 1.0}),
    RunEvent(101.0, "ready", {"generation": 1, "rank": 1, "total_steps": 20, "seconds": 1.0}),
    RunEvent(101.0, "state", {"state": "running"}),
]
EVALUATED = RunEvent(104.0, "evaluated", {"step": 5, "epoch": 0, "metrics": {"accuracy": 0.75}, "seconds": 0.1})
OUTPUT = RunEvent(103.0, "output", {"generation": 1, "rank": 1, "text": "hello [bold]"})
SPENT = RunEvent(104.0, "spent", {"usd": 0.5, "function_s": 8.0})


def feed(shown, *events: RunEvent) -> None:
    for event in [*START, *events]:
        shown(event)


def test_lines_come_when_something_happens_and_every_five_seconds(capsys):
    shown = Plain(detailed=False)
    evaluations = [replace(EVALUATED, time=115.0 + hundredth / 100) for hundredth in range(50)]
    steps = [step(number, 102.0 + number) for number in range(12)]
    feed(shown, *steps, OUTPUT, *evaluations, SPENT, step(12, 118.0))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "run r: task.py:A on local",
        "plan: 2 workers of 1.0 GiB, every_step over shared_memory (so)",
        "starting workers",
        "training",
        "step 1 of 20, epoch 1 of 1, loss 0.5, 128 examples/s, 2.0 s",
        "step 6 of 20, epoch 1 of 1, loss 0.5, 128 examples/s, 7.0 s",
        "step 11 of 20, epoch 1 of 1, loss 0.5, 128 examples/s, 12.0 s",
        "[rank 1] hello [bold]",
        "evaluated at step 5: accuracy 0.75 (100 ms)",
        "step 13 of 20, epoch 1 of 1, loss 0.5, 128 examples/s, 18.0 s, $0.5000 of $2.00",
    ]


def test_more_is_told_where_it_is_asked_for(capsys):
    feed(Plain(detailed=True))
    assert "rank 1 is ready after 1.0 s" in capsys.readouterr().err


def test_more_memory_is_told_of(capsys):
    data = {"generation": 1, "rank": 1, "incarnation": 0, "from_mib": 1024, "memory_mib": 2048, "detail": "MemoryError"}
    feed(Plain(detailed=False), RunEvent(102.0, "memory_raised", data))
    told = "rank 1 ran out of its 1.0 GiB: workers are launched with 2.0 GiB from now on"
    assert told in capsys.readouterr().err.splitlines()


def test_a_failure_that_is_no_ranks_is_the_runs(capsys):
    failure = {"kind": "PluginError", "message": "functions cannot start here", "hint": "", "traceback": ""}
    Plain(detailed=True)(RunEvent(102.0, "failed", failure))
    lines = EventLines(steps_every_s=1.0, detailed=True)
    assert lines.of(RunEvent(102.0, "failed", failure)) == ["the run failed: functions cannot start here"]
    assert lines.of(RunEvent(102.0, "failed", {"rank": 1, **failure})) == ["rank 1 failed: functions cannot start here"]


def test_quiet_is_quiet(capsys):
    shown = Quiet()
    with shown:
        feed(shown, step(0, 102.0), OUTPUT)
        shown.say("hush")
    assert capsys.readouterr() == ("", "")
    assert shown.view.step == 1


@pytest.fixture
def console():
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None, highlight=False)


def drawn(bar: Bar, console: Console) -> list[str]:
    with console.capture() as capture:
        console.print(bar.render())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_bar_shows_the_figures_of_the_moment(console):
    bar = Bar(console, detailed=False, clock=lambda: 110.0)
    feed(bar, *[step(number, 102.0) for number in range(10)], EVALUATED, SPENT)
    first, second = drawn(bar, console)
    assert first.endswith("step 10 of 20, epoch 1 of 1  loss 0.5  128 examples/s")
    assert second == "running  2/2 workers  10.0 s of 1 m 00 s  $0.5000 of $2.00  accuracy 0.75"
    bar.say("stopping after a checkpoint")
    assert drawn(bar, console)[1].startswith("stopping after a checkpoint  2/2 workers")


def test_the_bar_before_anything_is_known(console):
    assert drawn(Bar(console, detailed=False, clock=lambda: 0.0), console)[1].startswith("planning")


def test_what_workers_print_stands_above_the_bar_as_it_is(console):
    with Bar(console, detailed=False, clock=lambda: 110.0) as bar:
        feed(bar, OUTPUT)
    assert "[rank 1] hello [bold]" in console.file.getvalue()


def test_what_suits_the_terminal(monkeypatch):
    assert isinstance(progress_for(quiet=True, detailed=False), Quiet)
    assert isinstance(progress_for(quiet=False, detailed=False), Plain)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress_for(quiet=False, detailed=False), Bar)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_for(quiet=False, detailed=False), Plain)


def test_a_word_from_a_signal_handler_goes_past_pythons_buffers(capfd):
    Plain(detailed=False).say("stopping")
    assert capfd.readouterr().err == "stopping\n"


def test_a_word_where_stderr_is_no_file(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    Plain(detailed=False).say("stopping")
    assert sys.stderr.getvalue() == "stopping\n"
