"""Rules of chaos: what they say, what is refused, and at which places of which processes they take effect."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from smlt.core.backend import Backend
from smlt.core.chaos import DRIVING, KINDS, POINTS, Fault, FaultPoints, once, parse_faults
from smlt.core.chaos_channel import ChaosChannel
from smlt.core.errors import ConfigError
from smlt.core.layers import read_layers
from smlt.core.plugins import load_registry
from smlt.core.settings import resolve
from smlt.core.storage import ChannelKey
from smlt.testing.backend import eventually
from tests.support.channels import MemoryChannel, Room
from tests.support.clocks import FakeClock
from tests.support.stores import DictStore


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kill:rank=1,step=7", Fault("kill", rank=1, step=7)),
        ("kill", Fault("kill")),
        (" kill : rank = any , step=7,at=sending", Fault("kill", step=7, at="sending")),
        ("hang:at=ready,generation=2", Fault("hang", at="ready", generation=2)),
        ("kill:incarnation=any", Fault("kill", incarnation=None)),
        ("freeze:seconds=1500ms,incarnation=1", Fault("freeze", seconds=1.5, incarnation=1)),
        ("slow:at=saving,seconds=2", Fault("slow", at="saving", seconds=2.0)),
        ("slow:factor=3", Fault("slow", at="computed", factor=3.0)),
        ("controller_exit:step=9", Fault("controller_exit", step=9, at=DRIVING)),
    ],
)
def test_what_a_rule_says(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


def test_rules_in_one_text_or_in_several() -> None:
    rules = (Fault("kill", rank=1), Fault("hang", step=2))
    assert parse_faults(["kill:rank=1; hang:step=2;"]) == parse_faults(["kill:rank=1", "hang:step=2"]) == rules
    assert parse_faults([]) == parse_faults([""]) == ()


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("kil:rank=1", "nothing is called 'kil'", "'kill'"),
        ("explode", "nothing is called 'explode'", ", ".join(sorted(KINDS))),
        ("kill:rnak=1", "kill has no 'rnak'", "'rank'"),
        ("kill:seconds=1", "kill has no 'seconds'", "at, generation, incarnation, rank, step"),
        ("controller_exit:rank=1", "controller_exit has no 'rank'", ""),
        ("kill:rank", "rank wants one value", "rank=VALUE"),
        ("kill:rank=1,rank=2", "rank wants one value", ""),
        ("kill:step=soon", "step is a whole number, not 'soon'", "step=1"),
        ("kill:step=-1", "step is a whole number", ""),
        ("kill:at=sendin", "no place is called 'sendin'", "'sending'"),
        ("kill:at=driving", "no place is called 'driving'", ""),
        ("kill:at=nowhere", "no place is called 'nowhere'", ", ".join(sorted(POINTS))),
        ("freeze:rank=1", "for how long?", "seconds=3"),
        ("freeze:seconds=soon", "not a duration", ""),
        ("slow:rank=1", "how slow?", "one of seconds=0.5 and factor=3"),
        ("slow:factor=3,seconds=1", "how slow?", ""),
        ("slow:factor=0.5", "factor is a number above 1", ""),
        ("slow:factor=2,at=saving", "a factor is of computing", ""),
    ],
)
def test_what_is_no_rule(text: str, what: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(what)) as error:
        parse_faults(["kill", text])
    assert repr(text) in error.value.message
    assert hint in error.value.hint


def backend(tmp_path: Path, *assignments: str) -> Backend:
    """As `smlt train` makes it of `--set` options."""
    registry = load_registry()
    layers = read_layers(cwd=tmp_path, env={}, flags={"task": "task.py:Task"}, assignments=assignments)
    section = resolve(layers, registry).spec.backend
    return registry.backend(section.name, section.options)


def test_the_local_backend_takes_rules_from_the_command_line(tmp_path: Path) -> None:
    given = ("backend.chaos=kill:rank=1,step=7", "backend.chaos=hang:step=9;controller_exit:step=20")
    rules = (Fault("kill", rank=1, step=7), Fault("hang", step=9), Fault("controller_exit", step=20, at=DRIVING))
    assert backend(tmp_path, *given).faults == rules
    assert backend(tmp_path).faults == ()


def test_a_mistake_in_a_rule_is_a_mistake_in_the_job(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"backend\.chaos: .*kill has no 'rnk'.*'rank'"):
        backend(tmp_path, "backend.chaos=kill:rnk=1")


class Places:
    """A process with rules, what happened in it, and its run's store."""

    def __init__(
        self,
        *rules: str,
        rank: int = 1,
        generation: int = 1,
        incarnation: int = 0,
        store: DictStore | None = None,
    ) -> None:
        self.happened: list[Fault] = []
        self.store, self.clock = store or DictStore(), FakeClock(100.0)
        deeds = dict.fromkeys(KINDS, self.happened.append)
        faults = parse_faults(rules)
        first_time = once(self.store, rank)
        self.points = FaultPoints(faults, rank, generation, incarnation, first_time, deeds, self.clock)

    def reach(self, point: str, *steps: int) -> int:
        """Be there at these steps; returns how often something happened."""
        before = len(self.happened)
        for step in steps:
            self.points.reach(point, step)
        return len(self.happened) - before


def test_a_rule_takes_effect_at_its_place_and_step_once() -> None:
    places = Places("kill:rank=1,step=7,at=sending")
    assert places.reach("computing", 6, 7, 8) == 0
    assert places.reach("sending", 5, 6) == 0
    assert places.reach("sending", 7) == 1
    assert places.reach("sending", 7, 8) == 0


def test_a_place_that_is_not_reached_at_the_step_is_waited_for() -> None:
    assert Places("kill:step=7,at=saving").reach("saving", 4, 6, 9, 12) == 1


@pytest.mark.parametrize(
    "other", [{"rank": 0}, {"generation": 2}, {"incarnation": 0}], ids=["rank", "generation", "incarnation"]
)
def test_a_rule_means_no_other_process(other: dict[str, int]) -> None:
    rule = "kill:rank=1,generation=1,incarnation=2"
    assert Places(rule, rank=1, generation=1, incarnation=2).reach("computing", 0) == 1
    assert Places(rule, **{"rank": 1, "generation": 1, "incarnation": 2} | other).reach("computing", 0) == 0


def test_who_replaces_a_rank_is_spared_unless_a_rule_says_otherwise() -> None:
    assert Places("kill:rank=1", incarnation=1).reach("computing", 3) == 0
    assert Places("kill:rank=1,incarnation=any", incarnation=1).reach("computing", 3) == 1


def test_what_has_happened_in_a_run_does_not_happen_again_in_another_process() -> None:
    first = Places("kill:incarnation=any", "kill:incarnation=any")
    assert first.reach("computing", 3) == 2
    assert (
        Places("kill:incarnation=any", "kill:incarnation=any", generation=2, store=first.store).reach("computing", 3)
        == 0
    )
    assert Places("kill:incarnation=any", rank=0, store=first.store).reach("computing", 3) == 1  # a rule for every rank


def test_a_slow_rank_stays_slow() -> None:
    places = Places("slow:step=3,seconds=0.5", "slow:factor=3,step=4")
    assert places.reach("computing", 2, 3, 4) == 2
    places.clock.advance(2.0)
    assert places.reach("computed", 3, 4) == 1
    assert [fault.seconds for fault in places.happened] == [0.5, 0.5, 4.0]


def test_the_controller_is_hit_in_its_first_session_only() -> None:
    assert Places("controller_exit:step=9", rank=-1, generation=0).reach(DRIVING, 8, 9, 10) == 1
    assert Places("controller_exit:step=9", rank=-1, generation=0, incarnation=1).reach(DRIVING, 8, 9, 10) == 0
    assert Places("controller_exit:step=9", "kill").reach("computing", 9) == 1  # and no worker with it


PIECES = [
    "hello",
    "grad",
    "grad0.1",
    "all",
    "0.grad",
    "part3",
    "sum",
    "0.sum",
    "sum1",
    "state",
    "state.0",
    "whole.0",
    "bye",
]


def reached(points: Sequence[str]) -> list[tuple[str, str]]:
    """Which piece's put reaches which of the points."""
    happened: list[tuple[str, str]] = []
    for point in points:
        places = Places(f"slow:at={point},seconds=1")
        with ChaosChannel(MemoryChannel(Room(), 1), places.points, lambda: 5) as channel:
            for piece in PIECES:
                before = len(places.happened)
                channel.put(ChannelKey(1, 0, 0, piece, 1), [b"x"])
                if len(places.happened) > before:
                    happened.append((point, piece))
    return happened


def test_places_within_the_channel() -> None:
    assert reached(["sending"]) == [("sending", piece) for piece in ("grad", "grad0.1", "all", "0.grad", "part3")]
    assert reached(["reducing"]) == [("reducing", piece) for piece in ("sum", "0.sum", "sum1")]
    assert reached(["serving"]) == [("serving", piece) for piece in ("state", "state.0")]


def test_the_channel_is_the_one_inside() -> None:
    room = Room()
    inner = MemoryChannel(room, 1)
    channel = ChaosChannel(inner, Places().points, lambda: 0)
    assert channel.capabilities is inner.capabilities
    channel.reserve(64)
    memory = channel.allocate(16)
    key, other = ChannelKey(1, 0, 3, "grad", 1), ChannelKey(1, 0, 3, "grad", 0)
    channel.put(key, [memory])
    MemoryChannel(room, 0).put(other, [b"0123456789"])
    into = memoryview(bytearray(4))
    assert channel.get_into(other, into, timeout_s=1.0, offset=2) == 4
    assert bytes(into) == b"2345"
    assert channel.get(other, timeout_s=1.0) == b"0123456789"
    seen = channel.view(other, timeout_s=1.0, offset=8, length=5)
    assert seen is not None
    assert bytes(seen) == b"89"
    channel.expect([other])
    channel.expect([other], [(0, 4)])
    channel.discard(key)
    assert room.published() == [other]
    assert channel.stats() == inner.stats()
    assert channel.stats().bytes_down == 4 + 10 + 2
    channel.close()
    assert room.closed == {1}
    with pytest.raises(Exception, match="does not add up"):
        ChaosChannel(MemoryChannel(room, 2), Places().points, lambda: 0).reduce_into(
            key, b"", np.zeros(1), ranks=2, patience=lambda: None
        )


_VICTIM = """
import sys
from smlt.core.chaos import FaultPoints, parse_faults
print("here", flush=True)
FaultPoints(parse_faults([sys.argv[1]]), 0, 1, 0, lambda number: True).reach("computing", 0)
print("there", flush=True)
"""


def victim(rule: str) -> subprocess.Popen[str]:
    """A process to which this happens."""
    return subprocess.Popen([sys.executable, "-c", _VICTIM, rule], stdout=subprocess.PIPE, text=True)


def test_a_killed_process_is_killed() -> None:
    with victim("kill") as process:
        assert process.communicate() == ("here\n", None)
        assert process.returncode == -signal.SIGKILL


def test_a_frozen_process_stands_still_and_goes_on() -> None:
    with victim("freeze:seconds=0.5") as process:
        seen = psutil.Process(process.pid)
        eventually(lambda: seen.status() == psutil.STATUS_STOPPED, 60, "it is frozen")
        assert process.communicate() == ("here\nthere\n", None)


def test_a_hung_process_does_nothing_more() -> None:
    with victim("hang") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        seen = psutil.Process(process.pid)
        eventually(lambda: seen.status() == psutil.STATUS_SLEEPING, 60, "it waits")
        os.kill(process.pid, signal.SIGKILL)
        assert process.communicate() == ("", None)
