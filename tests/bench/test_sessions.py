"""Repeated sessions: the file, and what its table says of targets."""

from __future__ import annotations

import sys

import pytest

from benchmarks.sync import sessions


def session(**ms: float) -> dict[str, object]:
    """A session of 46 MB and two ranks with these medians."""
    rows = [
        {
            "variant": variant.replace("_py", "-py").replace("_tcp", "-tcp"),
            "kind": "channel",
            "workers": 2,
            "megabytes": 46.0,
            "median_ms": value,
            "ratio_to_gloo": value / ms["gloo"],
            "worker_cpu_ms": 2 * value,
        }
        for variant, value in ms.items()
    ]
    return {"rows": rows, "machine": {"load_average": [0.5, 0.5, 0.5]}}


def test_medians_over_sessions_are_held_against_targets():
    found = [session(gloo=100, redis=ratio * 100, object=160, lambdaml=1000) for ratio in (2.2, 2.0, 9.0)]
    rows = {row[0]: row[1:] for row in sessions.table(found)}
    assert rows["redis / gloo"] == ["2", "46", "2.20", "2.00", "9.00", "2.5", "2.1", "must"]
    assert rows["object / gloo"] == ["2", "46", "1.60", "1.60", "1.60", "1.5", "1.2", "missed"]
    assert rows["lambdaml / gloo"] == ["2", "46", "10.00", "10.00", "10.00", "", "", ""]
    assert rows["lambdaml / redis, time"] == ["2", "46", "4.55", "1.11", "5.00", "6", "8", "missed"]
    assert rows["lambdaml / redis, workers' CPU"][2] == "4.55"
    assert "gloo / gloo" not in rows


def test_a_reducing_store_has_the_same_targets_over_tcp_as_over_a_socket():
    rows = {row[0]: row[1:] for row in sessions.table([session(gloo=100, reducing=150, reducing_tcp=150)])}
    assert rows["reducing-tcp / gloo"] == rows["reducing / gloo"]
    assert rows["reducing-tcp / gloo"][-3:] == ["1.8", "1.3", "must"]


def test_an_aim_that_is_reached_is_told():
    rows = {row[0]: row[-1] for row in sessions.table([session(gloo=100, redis=100, lambdaml=800)])}
    assert (rows["redis / gloo"], rows["lambdaml / redis, time"]) == ("aim", "aim")


def test_sessions_are_added_to_a_file_one_at_a_time(tmp_path, monkeypatch, capsys):
    out = tmp_path / "sync.json"
    asked = ["--workers", "2", "--megabytes", "0.01", "--rounds", "1", "--channels", "object", "--peers", "gloo"]
    for count in (1, 2):
        monkeypatch.setattr(sys, "argv", ["sessions", "--out", str(out), *asked])
        sessions.main()
        assert len(sessions.read(out)) == count
    assert all(len(each["rows"]) == 2 and each["date"] for each in sessions.read(out))
    assert "2 sessions; load average before each" in capsys.readouterr().out


def test_a_mistake_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sessions", "--out", str(tmp_path / "sync.json"), "--channels", "objekt"])
    with pytest.raises(SystemExit, match="did you mean 'object'"):
        sessions.main()
