"""A launcher whose functions are the business of a server process of its own, so that the engine's is left alone.

It holds one socket to that server and no thread: messages move when it is asked something. The engine is never forked,
and what the server's libraries do to signals, threads, folders and the environment stays there.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from smlt.backends.function_process import kill_group, thread_variables
from smlt.backends.link import CLOSE, GONE, LAUNCH, READY, STARTED, STOP, UNUSABLE, Link, Order, Report
from smlt.core import wire
from smlt.core.backend import FunctionState, Launcher, Phase, RankSpec, RunPlace
from smlt.core.errors import JobFailed, SmltError

WORKER = "smlt.core.function:work"
_STOP_S = 10.0
_TAIL = 2000


class _TakenOver:
    """A server that another process started: no child of this one, and over when its link is lost."""

    def __init__(self, pid: int, link: Link) -> None:
        self.pid, self._link = pid, link

    def kill(self) -> None:
        if not self._link.lost:  # its number may be another process's by now
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float | None = None) -> int:
        if timeout_s is not None and not self._link.lost:
            raise subprocess.TimeoutExpired("server", timeout_s)
        return 0


class ServedLauncher(Launcher):
    """Starts functions through a server; each prints into `<runs_dir>/<run>/logs/<label>.txt`.

    A handle is the label of the spec. The constructor returns at once: the server gets ready meanwhile. A server that
    is killed takes its functions with it, and `launch` starts another; one that cannot get ready is an error.

    Args:
        place: the run.
        entry: "module:function" that a function runs with its spec.
    """

    server: ClassVar[str]
    """The server's module, run with the number of its socket, the entry, `after_grace_s` and `_server_arguments`."""

    after_grace_s: ClassVar[float] = 5.0
    """Without an engine, a function that has not left so long after its orphan grace is killed by the server."""

    def __init__(self, place: RunPlace, entry: str = WORKER) -> None:
        self._place = place
        self._entry = entry
        self._logs = place.runs_dir.absolute() / place.run / "logs"
        self._states: dict[str, FunctionState] = {}
        self._paths: dict[str, Path] = {}
        self._pids: dict[str, int] = {}
        self._failure: SmltError | None = None
        self._lock = threading.RLock()
        self._closed = False
        self._start_server()

    @abstractmethod
    def _server_arguments(self) -> Sequence[str]:
        """What the server is told beside its socket and the entry; called before each start of one."""

    @abstractmethod
    def _server_environment(self) -> Mapping[str, str]:
        """The whole environment of the server and its functions."""

    @abstractmethod
    def _cannot_start(self, reason: str, hint: str, log: Path) -> SmltError:
        """The error for a server that says why it cannot start functions, and perhaps how to mend it."""

    def _server_released(self) -> None:
        """Remove what the server may have left; it is dead by now."""

    def _start_server(self) -> None:
        self._server_log = self._logs / f"{self.server.removeprefix('smlt.backends.')}.txt"
        ours, theirs = socket.socketpair()
        self._link = Link(ours)
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            arguments = [str(theirs.fileno()), self._entry, str(self.after_grace_s), *self._server_arguments()]
            with theirs, self._server_log.open("ab") as log:
                self._server: subprocess.Popen[bytes] | _TakenOver = subprocess.Popen(
                    [sys.executable, "-P", "-m", self.server, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._server_environment(),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            theirs.close()
            raise JobFailed(
                f"functions cannot be started: {error}", "see that the runs folder can be written, and free memory"
            ) from error
        self._ready = False
        self._asked = False

    def _take_over(self, sock: socket.socket) -> bool:
        """Go on with the server behind this socket instead of one's own, if its launcher is gone."""
        link, reports = Link(sock), list[Report]()
        last = time.monotonic() + _STOP_S
        while not any(report.event == READY for report in reports):
            left_s = last - time.monotonic()
            if link.lost or left_s <= 0:
                link.socket.close()
                return False
            link.wait(left_s)
            reports += [wire.unpack(body, Report) for body in link.receive()]
        self._release_server()
        pid = next(report.pid for report in reports if report.event == READY)
        self._link, self._server, self._asked = link, _TakenOver(pid, link), True
        for report in reports:
            if report.event == STARTED:
                self._paths[report.handle] = self._logs / f"{report.handle}.txt"
                self._states[report.handle] = FunctionState(Phase.PENDING)
            self._apply(report)
        return True

    def _do_launch(self, spec: RankSpec) -> str:
        with self._lock:
            self._pump()
            if self._closed:
                raise JobFailed("the launcher is closed")
            if self._link.lost:
                self._release_server()
                self._start_server()
            handle, number = spec.label, 1
            while handle in self._states:
                number += 1
                handle = f"{spec.label}#{number}"
            self._paths[handle] = self._logs / f"{handle}.txt"
            self._states[handle] = FunctionState(Phase.PENDING)
            self._asked = True
            self._link.send(Order(LAUNCH, handle, spec, str(self._paths[handle])))
            return handle

    def _do_poll(self, handles: Sequence[str]) -> Mapping[str, FunctionState]:
        with self._lock:
            self._pump()
            unknown = FunctionState(Phase.LOST, "not started by this launcher")
            return {handle: self._states.get(handle, unknown) for handle in handles}

    def _do_stop(self, handle: str) -> None:
        with self._lock:
            self._pump()
            state = self._states.get(handle)
            if state is None or state.phase in (Phase.ENDED, Phase.LOST):
                return
            self._link.send(Order(STOP, handle))
            if state.phase is Phase.PENDING and not self._ready:
                # The server, still importing, reads both orders in turn: the function ends as it starts.
                self._states[handle] = FunctionState(Phase.LOST, "stopped before it started")
                return
            if not self._pump_until(lambda: self._states[handle].phase in (Phase.ENDED, Phase.LOST), _STOP_S):
                raise JobFailed(f"function {handle} could not be stopped in {_STOP_S:g} s", "kill its process by hand")

    def _do_logs(self, handle: str) -> str:
        path = self._paths.get(handle, self._logs / f"{handle}.txt")
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def _do_close(self) -> None:
        with self._lock:
            self._closed = True
            if self._link.socket.fileno() < 0:
                return
            if self._asked and not self._link.lost:
                self._link.send(Order(CLOSE))
                self._pump_until(lambda: self._link.lost, _STOP_S)
            self._release_server()

    def _pump(self) -> None:
        """Move what messages there are, both ways, without waiting.

        Raises:
            SmltError: what the server said that it lacks, then and ever after.
            JobFailed: it died before it could say anything.
        """
        if self._link.socket.fileno() < 0:
            return
        self._link.flush()
        for body in self._link.receive():
            self._apply(wire.unpack(body, Report))
        if self._closed:
            return
        if self._link.lost:
            self._server_died()
        if self._failure is not None:
            raise self._failure

    def _apply(self, report: Report) -> None:
        if report.event == READY:
            self._ready = True
        elif report.event == UNUSABLE:
            self._failure = self._cannot_start(report.detail, report.hint, self._server_log)
        elif self._states[report.handle].phase not in (Phase.ENDED, Phase.LOST):
            if report.event == STARTED:
                if report.pid:
                    self._pids[report.handle] = report.pid
                self._states[report.handle] = FunctionState(Phase.RUNNING)
            elif report.event == GONE:
                self._pids.pop(report.handle, None)
                self._states[report.handle] = FunctionState(Phase(report.phase), report.detail, report.out_of_memory)

    def _server_died(self) -> None:
        """Its functions died with it, or do now; `launch` starts another server."""
        self._kill_functions()
        self._lose_all("its server was killed")
        if self._failure is None and not self._ready:
            code = self._server.wait()
            tail = self._server_log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()
            self._failure = JobFailed(
                f"{self.server} ended with exit code {code} before it was ready: {tail}", f"see {self._server_log}"
            )

    def _pump_until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        last = time.monotonic() + timeout_s
        while not done():
            if (left := last - time.monotonic()) <= 0:
                return False
            self._link.wait(left)
            self._pump()
        return True

    def _release_server(self) -> None:
        self._link.socket.close()
        if not self._asked or self._link.lost:
            self._server.kill()
        try:
            self._server.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._kill_functions()
        self._lose_all("stopped")
        self._server_released()

    def _lose_all(self, detail: str) -> None:
        for handle, state in self._states.items():
            if state.phase in (Phase.PENDING, Phase.RUNNING):
                self._states[handle] = FunctionState(Phase.LOST, detail)

    def _kill_functions(self) -> None:
        for pid in self._pids.values():
            kill_group(pid)
        self._pids.clear()


def thread_environment(threads: int) -> dict[str, str]:
    """This process's environment, with thread pools sized."""
    return {**os.environ, **thread_variables(threads)}
