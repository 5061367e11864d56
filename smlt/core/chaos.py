"""Faults on purpose: what shall go wrong, at which named place of the protocol, and how often that place was reached.

For whoever wants to see recovery, and for tests. A place is a point of the code, never a moment: the same rule does the
same thing in every run. Only a backend whose options offer it hands rules to its functions.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smlt.core import layout
from smlt.core.errors import AlreadyExists, ConfigError, nearest
from smlt.core.storage import ObjectStore
from smlt.core.units import parse_duration_s

POINTS = {
    "building": "as the task is built",
    "ready": "it has said READY and waits for a round",
    "meeting": "as it comes to a round, before the others hear of it",
    "loading": "as it loads a state, from a checkpoint or a donor",
    "serving": "the donor has begun to serve its state",
    "computing": "as forward begins",
    "computed": "after backward",
    "announcing": "rank 0 is about to say that the generation ends with this step",
    "sending": "a part of its contribution has left",
    "reducing": "a part of its reduced shard has left",
    "consumed": "it has all sums of the step and has not committed it",
    "committed": "after the commit",
    "evaluating": "it has evaluated its share and has not told",
    "saving": "its part of a checkpoint is written",
    "manifest": "what it writes of a checkpoint is written, and on rank 0 all; the manifest is not",
    "saved": "the manifest is written and nobody told; on rank 0",
    "exporting": "as rank 0 writes the model",
    "leaving": "it has nothing left to do but to say so",
}
"""Where a worker can be hit."""

IN_CHANNEL = ("sending", "reducing", "serving")
"""Points that lie between two requests to the channel."""

DRIVING = "driving"
"""The controller's only point: the step is committed, and noted."""

KINDS = {
    "kill": "SIGKILL",
    "hang": "it beats, and does nothing more",
    "freeze": "SIGSTOP, and SIGCONT after so many seconds",
    "slow": "so many seconds at every such place from this step on, or computing takes so many times as long",
    "controller_exit": "SIGKILL to the process that drives the run",
}
"""What can go wrong."""

_KEYS = {
    "kill": {"rank", "step", "at", "generation", "incarnation"},
    "hang": {"rank", "step", "at", "generation", "incarnation"},
    "freeze": {"rank", "step", "at", "generation", "incarnation", "seconds"},
    "slow": {"rank", "step", "at", "generation", "incarnation", "seconds", "factor"},
    "controller_exit": {"step", "incarnation"},
}


@dataclass(frozen=True)
class Fault:
    """One rule. It takes effect once in a run, on each rank that it names; a slow rank stays slow.

    Attributes:
        kind: one of `KINDS`.
        rank: None for every rank.
        step: this one or, if the place is not reached then, the first later one at which it is.
        at: one of `POINTS`.
        generation: None for any.
        incarnation: which launch of the rank; of `controller_exit`, which session of the run, from 0; None for any.
        seconds: how long it is frozen, or how much slower it is.
        factor: how many times as long computing takes.
    """

    kind: str
    rank: int | None = None
    step: int = 0
    at: str = "computing"
    generation: int | None = None
    incarnation: int | None = 0
    seconds: float = 0.0
    factor: float = 1.0

    def __str__(self) -> str:
        rank = "" if self.rank is None else f"rank={self.rank},"
        return f"{self.kind}:{rank}step={self.step}" + ("" if self.at == DRIVING else f",at={self.at}")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """The rule that "kill:rank=1,step=7" spells.

        Raises:
            ConfigError: it spells none.
        """
        kind, _, rest = (part.strip() for part in text.partition(":"))
        if kind not in KINDS:
            raise _wrong(text, f"nothing is called {kind!r}", nearest(kind, list(KINDS)))
        given: dict[str, str] = {}
        for item in filter(None, (part.strip() for part in rest.split(","))):
            key, equals, value = (part.strip() for part in item.partition("="))
            if key not in _KEYS[kind]:
                raise _wrong(text, f"{kind} has no {key!r}", nearest(key, sorted(_KEYS[kind])))
            if not equals or not value or key in given:
                raise _wrong(text, f"{key} wants one value", f"write {key}=VALUE")
            given[key] = value
        fault = cls(kind, **{key: _READ[key](text, key, value) for key, value in given.items()})
        return fault._whole(text, given)

    def _whole(self, text: str, given: Mapping[str, str]) -> Fault:
        if self.kind == "controller_exit":
            return Fault(self.kind, step=self.step, incarnation=self.incarnation, at=DRIVING)
        if self.kind == "freeze" and "seconds" not in given:
            raise _wrong(text, "for how long?", "add seconds=3")
        if self.kind == "slow" and ("seconds" in given) == ("factor" in given):
            raise _wrong(text, "how slow?", "add one of seconds=0.5 and factor=3")
        if "factor" in given:
            if "at" in given:
                raise _wrong(text, "a factor is of computing, and of nothing else", "leave `at` out, or give seconds")
            return Fault(**{**vars(self), "at": "computed"})
        return self


def parse_faults(texts: Iterable[str]) -> tuple[Fault, ...]:
    """The rules that texts spell, several in one text separated by ";".

    Raises:
        ConfigError: one of them is no rule.
    """
    rules = (rule.strip() for text in texts for rule in text.split(";"))
    return tuple(Fault.parse(rule) for rule in rules if rule)


def _whole_number(text: str, key: str, value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise _wrong(text, f"{key} is a whole number, not {value!r}", f"write {key}=1")
    return int(value)


def _number_or_any(text: str, key: str, value: str) -> int | None:
    return None if value == "any" else _whole_number(text, key, value)


def _duration(text: str, key: str, value: str) -> float:
    try:
        return parse_duration_s(value)
    except ValueError as error:
        raise _wrong(text, str(error), "") from None


def _factor(text: str, key: str, value: str) -> float:
    try:
        factor = float(value)
    except ValueError:
        factor = 0.0
    if not 1.0 < factor < float("inf"):
        raise _wrong(text, f"{key} is a number above 1, not {value!r}", f"write {key}=3")
    return factor


def _point(text: str, key: str, value: str) -> str:
    if value not in POINTS:
        raise _wrong(text, f"no place is called {value!r}", nearest(value, list(POINTS)))
    return value


_READ: dict[str, Callable[[str, str, str], Any]] = {
    "rank": _number_or_any,
    "step": _whole_number,
    "generation": _number_or_any,
    "incarnation": _number_or_any,
    "seconds": _duration,
    "factor": _factor,
    "at": _point,
}


def _wrong(text: str, what: str, hint: str) -> ConfigError:
    return ConfigError(f"{text!r} is no fault: {what}", hint)


@dataclass
class FaultPoints:
    """The places of one process at which rules may take effect.

    Args:
        faults: all rules of the run, in their order, which numbers them.
        rank, generation, incarnation: whose process; a controller has rank -1.
        first_time: whether the rule of this number has not taken effect on this rank yet; from then on it has.
        deeds: what is done, by kind.
    """

    faults: Sequence[Fault]
    rank: int
    generation: int
    incarnation: int
    first_time: Callable[[int], bool]
    deeds: Mapping[str, Callable[[Fault], None]] = field(default_factory=lambda: DEEDS)
    clock: Callable[[], float] = time.monotonic
    _slow: set[int] = field(default_factory=set)
    _computing_since: float = 0.0

    def reach(self, point: str, step: int) -> None:
        """This process is at `point` of `step` now: what a rule says of it happens before this returns, if it does."""
        if not self.faults:
            return
        if point == "computing":
            self._computing_since = self.clock()
        for number, fault in enumerate(self.faults):
            if not self._is_meant(fault, point, step):
                continue
            if fault.kind == "slow":
                self._slow_down(number, fault)
            elif self.first_time(number):
                _say(fault, self, step)
                self.deeds[fault.kind](fault)

    def lie_in_channel(self) -> bool:
        """Whether a rule may take effect between two requests to the channel."""
        return any(fault.at in IN_CHANNEL for fault in self.faults)

    def _is_meant(self, fault: Fault, point: str, step: int) -> bool:
        return (
            fault.at == point
            and step >= fault.step
            and fault.rank in (None, self.rank)
            and fault.generation in (None, self.generation)
            and fault.incarnation in (None, self.incarnation)
        )

    def _slow_down(self, number: int, fault: Fault) -> None:
        if number not in self._slow:
            self._slow.add(number)
            self.first_time(number)
            _say(fault, self, fault.step)
        seconds = fault.seconds or (fault.factor - 1) * (self.clock() - self._computing_since)
        self.deeds[fault.kind](Fault(**{**vars(fault), "seconds": seconds}))


def once(store: ObjectStore, rank: int) -> Callable[[int], bool]:
    """`FaultPoints.first_time` for all processes of a run: who creates the rule's object is the first."""

    def first_time(number: int) -> bool:
        try:
            store.put_if_absent(layout.fault(number, rank), uuid.uuid4().bytes)
        except AlreadyExists:
            return False
        return True

    return first_time


def _say(fault: Fault, here: FaultPoints, step: int) -> None:
    who = "the controller" if fault.at == DRIVING else f"rank {here.rank}"
    print(f"chaos: {fault.kind} {who}, {fault.at} at step {step}", file=sys.stderr, flush=True)


def _kill(fault: Fault) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(fault: Fault) -> None:
    threading.Event().wait()


def _freeze(fault: Fault) -> None:
    """Another process wakes this one up; killed with it, for it is of the same group."""
    waker = f"sleep {fault.seconds:.3f}; kill -CONT {os.getpid()}"
    with subprocess.Popen(["/bin/sh", "-c", waker], stdin=subprocess.DEVNULL):
        os.kill(os.getpid(), signal.SIGSTOP)


def _slow(fault: Fault) -> None:
    time.sleep(fault.seconds)


DEEDS: Mapping[str, Callable[[Fault], None]] = {
    "kill": _kill,
    "hang": _hang,
    "freeze": _freeze,
    "slow": _slow,
    "controller_exit": _kill,
}
