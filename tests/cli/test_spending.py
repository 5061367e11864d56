"""Money is spent on a word only: a terminal's, `-y`, or a budget."""

from __future__ import annotations

import os
import pty
import subprocess

import pytest

from tests.cli.conftest import LINEAR, SMLT

PRICE = ("--set", "backend.usd_per_gib_s=0.001", "--steps", "2")


def at_a_terminal(answer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `smlt` with a terminal as its input, on which somebody types an answer."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        return subprocess.run([SMLT, *arguments], stdin=theirs, capture_output=True, text=True, timeout=120)
    finally:
        os.close(ours)
        os.close(theirs)


def test_nothing_is_asked_where_nothing_costs(smlt, linear):
    done = smlt(*LINEAR, "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert "Proceed?" not in done.stderr


def test_without_a_terminal_it_takes_a_word(smlt, linear):
    refused = smlt(*LINEAR, *PRICE)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "costs $7.2 an hour with 2 workers, and there is no terminal to ask" in refused.stderr
    assert "hint: give --budget 2usd, or -y" in refused.stderr
    assert not list(linear.glob(".smlt/runs/*"))


@pytest.mark.parametrize("word", [("-y",), ("--budget", "2usd")])
def test_a_word_suffices(smlt, linear, word):
    done = smlt(*LINEAR, *PRICE, *word)
    assert done.returncode == 0, done.stderr
    assert "Proceed?" not in done.stderr


@pytest.mark.parametrize("answer", ["\n", "y\n", "Yes\n"])
def test_at_a_terminal_the_table_is_shown_and_yes_begins_the_run(linear, answer):
    done = at_a_terminal(answer, *LINEAR, *PRICE, "--set", "planner.name=analytic")
    assert done.returncode == 0, done.stderr
    assert "fleet     2 workers of " in done.stderr
    assert "cost      $" in done.stderr
    assert "compute speed: guessed" in done.stderr
    assert "Proceed? [Y/n] " in done.stderr


def test_at_a_terminal_no_begins_nothing(linear):
    done = at_a_terminal("n\n", *LINEAR, *PRICE)
    assert done.returncode == 130
    assert "error: not started" in done.stderr
    assert not list(linear.glob(".smlt/runs/*"))
