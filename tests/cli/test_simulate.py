from __future__ import annotations

import json

import pytest

from smlt.core.protocol import RankProtocol

SMALL = ("simulate", "--seed", "7", "--workers", "4", "--steps", "12")


def test_a_run_as_json(main):
    code, out, _ = main(*SMALL, "--faults", "kill,hang", "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert document["broken"] == ""
    assert (document["status"], document["steps"]) == ("succeeded", 12)
    assert document["scenario"]["workers"] == 4
    assert {fault["kind"] for fault in document["scenario"]["faults"]} <= {"kill", "hang"}
    assert main(*SMALL, "--faults", "kill,hang", "-o", "json")[1] == out


def test_a_run_as_a_table(main):
    code, out, _ = main(*SMALL, "--faults", "none")
    assert code == 0
    figures = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert figures["broken"] == "nothing: every invariant holds"
    assert figures["ended"] == "succeeded: goal"
    assert figures["faults"] == "none"


def test_limits(main):
    code, out, _ = main(*SMALL, "--faults", "none", "--time-limit", "40s", "--budget", "0.0001usd", "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert (document["status"], document["stop_reason"]) == ("stopped", "budget")
    assert document["scenario"]["time_limit_s"] == 40.0


def test_a_broken_invariant_is_shown_with_what_came_before(main, monkeypatch):
    after_commit = RankProtocol._after_commit

    def twice(self, now):
        command = after_commit(self, now)
        if self._rank == 1 and self._cursor.step == 5:
            return after_commit(self, now)
        return command

    monkeypatch.setattr(RankProtocol, "_after_commit", twice)
    code, out, _ = main(*SMALL, "--faults", "none")
    assert code == 1
    broken = next(line for line in out.splitlines() if line.startswith("broken"))
    assert "contribute" in broken
    assert out.index("Commit(cursor=") < out.index(broken)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--faults", "kil"), "no such kind of fault: 'kil'"),
        (("--time-limit", "soon"), "--time-limit: not a duration"),
        (("--budget", "much"), "--budget: not an amount of money"),
    ],
)
def test_a_wrong_flag(main, flags, message):
    code, _, err = main(*SMALL, *flags)
    assert code == 2
    assert message in err
