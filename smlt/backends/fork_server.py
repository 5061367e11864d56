"""The fork server: a process with the framework imported, whose forks are warm functions; ProcessLauncher's other end.

Single-threaded, and imports frameworks only, never the user's task: a fork of it is as good as a fresh process. It
outlives a controller that was killed while workers may still be leaving, then ends what is left and itself.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from smlt.backends.function_process import (
    OUT_OF_MEMORY_CODE,
    die_with_parent,
    how_it_ended,
    kill_group,
    run_entry,
    take_over_output,
)
from smlt.backends.link import CLOSE, GONE, LAUNCH, READY, STARTED, STOP, UNUSABLE, Link, Order, Report, listening_at
from smlt.core import wire
from smlt.core.backend import Phase, RankSpec

COMPANIONS = {
    # torch.use_deterministic_algorithms imports the second one on its first call, which takes as long as torch itself.
    "torch": ("smlt.frameworks.torch", "torch._inductor.config"),
    "tensorflow": ("smlt.frameworks.keras",),
}
"""What a worker with this framework imports before its first step, so that a fork finds it; none is needed."""


@dataclass
class _Function:
    handle: str
    pid: int
    orphan_grace_s: float
    time_limit_s: float | None
    limit_at: float
    deadline: float
    ended_for: str = ""


class ForkServer:
    """Forks, watches and ends functions, as orders and clocks say."""

    def __init__(self, link: Link, entry: str, after_grace_s: float, listener: socket.socket | None = None) -> None:
        self._link = link
        self._listener = listener
        self._entry = entry
        self._after_grace_s = after_grace_s
        self._functions: dict[int, _Function] = {}
        self._closing = False
        self._orphaned = False
        # SIGCHLD writes into a socket that `run` waits at: an exit is noticed at once, without a thread.
        self._wake, wake_writer = socket.socketpair()
        self._wake.setblocking(False)
        wake_writer.setblocking(False)
        self._wake_writer = wake_writer
        signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Serve until the launcher closes, or is gone and no function is left."""
        self._link.send(Report(READY, pid=os.getpid()))
        while self._functions or not (self._closing or self._link.lost):
            listening = [self._listener.fileno()] if self._listener else []
            self._link.wait(self._until_next_deadline(), [self._wake.fileno(), *listening])
            with suppress(BlockingIOError):
                self._wake.recv(1 << 12)
            self._link.flush()
            for body in self._link.receive():
                self._obey(wire.unpack(body, Order))
            if self._link.lost and not self._orphaned:
                self._orphaned = True
                for function in self._functions.values():
                    last = time.monotonic() + function.orphan_grace_s + self._after_grace_s
                    function.deadline = min(function.deadline, last)
            self._mind_successor()
            self._enforce_deadlines()
            self._reap()

    def _mind_successor(self) -> None:
        """Who connects takes the place of a launcher that is gone, and is told of the functions that are there."""
        try:
            sock = self._listener.accept()[0] if self._listener else None
        except BlockingIOError:
            return
        if sock is None:
            return
        if not self._orphaned or self._closing:
            sock.close()
            return
        self._link, self._orphaned = Link(sock), False
        for function in self._functions.values():
            function.deadline = function.limit_at
            self._link.send(Report(STARTED, function.handle, function.pid))
        self._link.send(Report(READY, pid=os.getpid()))

    def _until_next_deadline(self) -> float | None:
        soonest = min((function.deadline for function in self._functions.values()), default=float("inf"))
        return None if soonest == float("inf") else max(0.0, soonest - time.monotonic())

    def _obey(self, order: Order) -> None:
        if order.action == LAUNCH and order.spec is not None and not self._link.lost:
            self._launch(order, order.spec)
        elif order.action == STOP:
            for function in [item for item in self._functions.values() if item.handle == order.handle]:
                self._end(function, "stopped")
        elif order.action == CLOSE:
            self._closing = True
            for function in list(self._functions.values()):
                self._end(function, "stopped")

    def _launch(self, order: Order, spec: RankSpec) -> None:
        server = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:  # no memory, or no process left to this user
            self._link.send(Report(GONE, order.handle, 0, Phase.LOST.value, f"cannot fork: {error.strerror}"))
            return
        if pid == 0:
            _be_function(self._entry, spec, order.log_path, server)
        deadline = time.monotonic() + spec.time_limit_s if spec.time_limit_s is not None else float("inf")
        self._functions[pid] = _Function(order.handle, pid, spec.orphan_grace_s, spec.time_limit_s, deadline, deadline)
        self._link.send(Report(STARTED, order.handle, pid))

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for function in [item for item in self._functions.values() if item.deadline <= now]:
            reason = "killed: it did not leave when its controller was gone"
            if not self._orphaned and function.time_limit_s is not None:
                reason = f"killed at its time limit of {function.time_limit_s:g} s"
            self._end(function, reason)

    def _end(self, function: _Function, reason: str) -> None:
        function.ended_for = function.ended_for or reason
        os.kill(function.pid, signal.SIGKILL)  # it may not lead its group yet
        kill_group(function.pid)
        _, status = os.waitpid(function.pid, 0)
        self._gone(function, status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._functions:
                self._gone(self._functions[pid], status)

    def _gone(self, function: _Function, status: int) -> None:
        del self._functions[function.pid]
        kill_group(function.pid)  # what it started itself, a data loader's processes for example
        code = os.waitstatus_to_exitcode(status)
        detail = function.ended_for if code < 0 and function.ended_for else how_it_ended(code)
        phase = Phase.ENDED if code == 0 else Phase.LOST
        short = code == OUT_OF_MEMORY_CODE
        self._link.send(Report(GONE, function.handle, function.pid, phase.value, detail if code else "", short))


def _be_function(entry: str, spec: RankSpec, log_path: str, server: int) -> NoReturn:
    """In the fork: become a process of its own, run the entry, and leave without the server's exit handlers."""
    code = 1
    try:
        os.setsid()
        if die_with_parent(server):
            signal.set_wakeup_fd(-1)
            os.closerange(3, _highest_descriptor() + 1)  # the server's socket, and whatever a framework opened
            take_over_output(log_path)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = run_entry(entry, spec)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _highest_descriptor() -> int:
    try:
        return max(int(entry.name) for entry in Path("/dev/fd").iterdir())
    except OSError:
        return 1024


def _preload(modules: Sequence[str]) -> str:
    """Import each; returns what went wrong, or an empty text."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # a framework's import may raise anything; it is reported, not hidden
            traceback.print_exc()
            return f"cannot import {module}: {type(error).__name__}: {error}"
        for companion in COMPANIONS.get(module, ()):
            with suppress(ImportError):
                importlib.import_module(companion)
    return ""


def main(arguments: Sequence[str]) -> None:
    """`python -m smlt.backends.fork_server FD MODULE:FUNCTION AFTER_GRACE_S SOCKETS [PRELOAD ...]`."""
    number, entry, after_grace_s, sockets, *preload = arguments
    link = Link(socket.socket(fileno=int(number)))
    if failure := _preload([*preload, entry.partition(":")[0]]):
        link.send(Report(UNUSABLE, detail=failure))
        return
    gc.collect()
    gc.freeze()  # a collection in a function does not touch, and so copy, the pages it shares with the server
    path = Path(sockets) / str(os.getpid())
    listener = listening_at(path)
    try:
        ForkServer(link, entry, float(after_grace_s), listener).run()
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1:])
