"""What a task prints: passed on line by line, and still written where it went before."""

from __future__ import annotations

import sys

import pytest

from smlt.core.output import OutputTee


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_lines_are_passed_on_as_they_are_finished(capsys: pytest.CaptureFixture[str], stream: str) -> None:
    heard: list[str] = []
    before = getattr(sys, stream)
    with OutputTee(heard.append):
        out = getattr(sys, stream)
        print("one", "two", file=out)
        out.write("thr")
        assert heard == ["one two"]
        out.write("ee\nfour\n\n")
        assert heard == ["one two", "three", "four", ""]
    assert getattr(sys, stream) is before
    assert getattr(capsys.readouterr(), "out" if stream == "stdout" else "err") == "one two\nthree\nfour\n\n"


def test_of_a_progress_bar_the_last_state_is_passed_on() -> None:
    heard: list[str] = []
    with OutputTee(heard.append):
        for percent in (10, 50, 100):
            sys.stderr.write(f"\r{percent}%")
            assert heard == []
        sys.stderr.write("\n")
    assert heard == ["100%"]


def test_a_line_that_was_never_finished_is_passed_on_in_the_end() -> None:
    heard: list[str] = []
    with OutputTee(heard.append):
        sys.stdout.write("the last words")
    assert heard == ["the last words"]


def test_streams_are_put_back_when_the_task_fails(capsys: pytest.CaptureFixture[str]) -> None:
    before = (sys.stdout, sys.stderr)
    with pytest.raises(ValueError, match="mistake"), OutputTee(lambda line: None):
        raise ValueError("mistake")
    assert (sys.stdout, sys.stderr) == before
    del capsys
