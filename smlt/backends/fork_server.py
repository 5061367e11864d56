"""The fork server: a process with the framework imported, whose forks are warm functions; ProcessLauncher's other end.

Single-threaded, and imports frameworks only, never the user's task: a fork of it is as good as a fresh process. It
outlives a controller that was killed while workers may still be leaving, then ends what is left and itself.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import math
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from smlt.core import wire
from smlt.core.backend import Phase, RankSpec

READY, UNUSABLE, STARTED, GONE = "ready", "unusable", "started", "gone"
LAUNCH, STOP, CLOSE = "launch", "stop", "close"
AFTER_GRACE_S = 5.0
"""A worker that has not left so long after its orphan grace is killed."""


@dataclass(frozen=True)
class Order:
    """From the launcher: launch a function for `spec` that prints into `log_path`, stop one, or close."""

    action: str
    handle: str = ""
    spec: RankSpec | None = None
    log_path: str = ""


@dataclass(frozen=True)
class Report:
    """To the launcher: ready, unusable (`detail` says why), a function started as `pid`, or it is gone in `phase`."""

    event: str
    handle: str = ""
    pid: int = 0
    phase: str = ""
    detail: str = ""


class Link:
    """Messages over a non-blocking socket: each is a length of four bytes and that many bytes of msgpack."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.lost = False
        self._in = bytearray()
        self._out = bytearray()

    def send(self, message: Order | Report) -> None:
        """Queue a message and send as much as the other side takes now."""
        body = wire.pack(message)
        self._out += len(body).to_bytes(4, "big") + body
        self.flush()

    def flush(self) -> None:
        """Send what is queued, as far as the other side takes it now."""
        try:
            while self._out and not self.lost:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.lost = True

    def receive(self) -> Iterator[bytes]:
        """The messages that have arrived, without waiting."""
        try:
            while not self.lost:
                piece = self.socket.recv(1 << 16)
                self._in += piece
                self.lost = not piece
        except BlockingIOError:
            pass
        except OSError:
            self.lost = True
        while len(self._in) >= 4 and len(self._in) >= 4 + (size := int.from_bytes(self._in[:4], "big")):
            body = bytes(self._in[4 : 4 + size])
            del self._in[: 4 + size]
            yield body

    def wait(self, timeout_s: float | None, also: Sequence[int] = ()) -> None:
        """Sleep until there is something to read here or at `also`, or room for what is queued."""
        poller = select.poll()
        for number in also:
            poller.register(number, select.POLLIN)
        if not self.lost:
            poller.register(self.socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        poller.poll(None if timeout_s is None else math.ceil(timeout_s * 1e3))


@dataclass
class _Function:
    handle: str
    pid: int
    orphan_grace_s: float
    time_limit_s: float | None
    deadline: float
    ended_for: str = ""


class ForkServer:
    """Forks, watches and ends functions, as orders and clocks say."""

    def __init__(self, link: Link, entry: str) -> None:
        self._link = link
        self._entry = entry
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
        self._link.send(Report(READY))
        while self._functions or not (self._closing or self._link.lost):
            self._link.wait(self._until_next_deadline(), [self._wake.fileno()])
            with suppress(BlockingIOError):
                self._wake.recv(1 << 12)
            self._link.flush()
            for body in self._link.receive():
                self._obey(wire.unpack(body, Order))
            if self._link.lost and not self._orphaned:
                self._orphaned = True
                for function in self._functions.values():
                    last = time.monotonic() + function.orphan_grace_s + AFTER_GRACE_S
                    function.deadline = min(function.deadline, last)
            self._enforce_deadlines()
            self._reap()

    def _until_next_deadline(self) -> float | None:
        soonest = min((function.deadline for function in self._functions.values()), default=float("inf"))
        return None if soonest == float("inf") else max(0.0, soonest - time.monotonic())

    def _obey(self, order: Order) -> None:
        if order.action == LAUNCH and order.spec is not None:
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
        pid = os.fork()
        if pid == 0:
            _be_function(self._entry, spec, order.log_path, server)
        deadline = time.monotonic() + spec.time_limit_s if spec.time_limit_s is not None else float("inf")
        self._functions[pid] = _Function(order.handle, pid, spec.orphan_grace_s, spec.time_limit_s, deadline)
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
        _kill_group(function.pid)
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
        _kill_group(function.pid)  # what it started itself, a data loader's processes for example
        code = os.waitstatus_to_exitcode(status)
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        detail = function.ended_for if code < 0 and function.ended_for else how
        phase = Phase.ENDED if code == 0 else Phase.LOST
        self._link.send(Report(GONE, function.handle, function.pid, phase.value, detail if code else ""))


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
        os.killpg(pid, signal.SIGKILL)


def _be_function(entry: str, spec: RankSpec, log_path: str, server: int) -> NoReturn:
    """In the fork: become a process of its own, run the entry, and leave without the server's exit handlers."""
    code = 1
    try:
        os.setsid()
        _die_with(server)
        _take_over_files(log_path)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        module, _, function = entry.partition(":")
        getattr(importlib.import_module(module), function)(spec)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _take_over_files(log_path: str) -> None:
    """Nothing of the server's stays open. Input is empty, output goes to the log as it is printed."""
    signal.set_wakeup_fd(-1)
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, max(_highest_descriptor(), log, null) + 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _highest_descriptor() -> int:
    try:
        return max(int(entry.name) for entry in Path("/dev/fd").iterdir())
    except OSError:
        return 1024


def _die_with(server: int) -> None:
    """On Linux the kernel ends this process when the server is killed; elsewhere the launcher does, by its pid."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)


def _preload(modules: Sequence[str]) -> str:
    """Import each; returns what went wrong, or nothing."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # a framework's import may raise anything; it is reported, not hidden
            traceback.print_exc()
            return f"cannot import {module}: {type(error).__name__}: {error}"
    return ""


def main(arguments: Sequence[str]) -> None:
    """`python -m smlt.backends.fork_server FD MODULE:FUNCTION [PRELOAD ...]`."""
    number, entry, *preload = arguments
    link = Link(socket.socket(fileno=int(number)))
    if failure := _preload([*preload, entry.partition(":")[0]]):
        link.send(Report(UNUSABLE, detail=failure))
        return
    gc.collect()
    gc.freeze()  # a collection in a function does not touch, and so copy, the pages it shares with the server
    ForkServer(link, entry).run()


if __name__ == "__main__":
    main(sys.argv[1:])
