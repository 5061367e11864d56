"""What Lithops calls in a function on a cloud: a process that watches over the one that is the rank.

It ends the rank when it is told to, at its time limit and with itself, and says how the rank ended: nobody else in a
cloud does all three. What the rank prints goes to the function's standard error, which every cloud keeps.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

from smlt.backends.function_process import (
    FRAMEWORK_DEFAULTS,
    OUT_OF_MEMORY_CODE,
    die_with_parent,
    how_it_ended,
    kill_group,
    print_to,
    run_entry,
    thread_variables,
)
from smlt.backends.lithops.calls import CallBoard, CallState
from smlt.core import wire
from smlt.core.backend import Phase, RankSpec
from smlt.core.errors import StorageError
from smlt.core.patient_store import PatientStore
from smlt.core.plugins import load_registry
from smlt.core.units import format_bytes

LOOK_S = 0.5
"""Between two looks whether the call is to stop."""

REAP_S = 0.02
"""Between two looks whether the rank has ended."""

LAST_WORD_S = 10.0
"""A store that is out of reach is tried for so long with the last word."""

NEARLY = 0.8
"""Killed by the kernel with so much of its memory in use, a rank was killed for it."""


def run(entry: str, packed: bytes, folder: str, name: str) -> int:
    """Run "module:function" with a packed RankSpec in a process of its own; returns that one's exit code.

    Args:
        entry: what the rank is.
        packed: its RankSpec.
        folder: of the launcher's calls in the run's store.
        name: of this call.
    """
    spec = wire.unpack(packed, RankSpec)
    os.environ.update({**FRAMEWORK_DEFAULTS, **os.environ, **thread_variables(spec.threads)})
    sys.stdout.flush()
    sys.stderr.flush()
    waits, says_go = os.pipe()
    parent = os.getpid()
    pid = os.fork()  # before a store is opened: its client has threads
    if pid == 0:
        os.close(says_go)
        _be_the_rank(entry, spec, waits, parent)
    os.close(waits)
    store = PatientStore(load_registry().open_store(spec.store), patience_s=LAST_WORD_S)
    return _Supervisor(spec, CallBoard(store, folder), name, pid, says_go).run()


def _be_the_rank(entry: str, spec: RankSpec, waits: int, parent: int) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()
        if die_with_parent(parent):
            print_to(2)
            code = run_entry(entry, spec) if os.read(waits, 1) else 0
    finally:
        os._exit(code)


@dataclass
class _Supervisor:
    """Watches one rank."""

    spec: RankSpec
    board: CallBoard
    name: str
    pid: int
    says_go: int

    def run(self) -> int:
        began = looked = time.monotonic()
        reason = ""
        try:
            if self.board.is_to_stop(self.name):
                reason = "stopped before it started"
            else:
                self.board.say(self.name, CallState(Phase.RUNNING.value, pid=self.pid))
                os.write(self.says_go, b"1")
            os.close(self.says_go)
            limit_s = self.spec.time_limit_s
            while (code := self._ended()) is None:
                now = time.monotonic()
                if limit_s is not None and now - began >= limit_s:
                    reason = f"killed at its time limit of {limit_s:g} s"
                elif now - looked >= LOOK_S:
                    looked = now
                    reason = "stopped" if self._is_to_stop() else reason
                if reason:
                    kill_group(self.pid)
                time.sleep(REAP_S)
        finally:
            kill_group(self.pid)  # what it started itself, a data loader's processes for example; and it
        self.board.say(self.name, self._verdict(code, reason))
        return code

    def _is_to_stop(self) -> bool:
        with suppress(StorageError):  # a store out of reach has told nothing
            return self.board.is_to_stop(self.name)
        return False

    def _ended(self) -> int | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def _verdict(self, code: int, reason: str) -> CallState:
        if reason:
            return CallState(Phase.LOST.value, reason)
        if code == 0:
            return CallState(Phase.ENDED.value)
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
        had = self.spec.memory_mib << 20
        if code == -signal.SIGKILL and used >= NEARLY * had:
            detail = f"killed with {format_bytes(used)} in use, of {format_bytes(had)}"
            return CallState(Phase.LOST.value, detail, out_of_memory=True)
        return CallState(Phase.LOST.value, how_it_ended(code), code == OUT_OF_MEMORY_CODE)
