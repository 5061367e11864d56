"""The local launcher: a function is a plain process, forked from a server that has the framework imported.

It holds one socket to that server (`fork_server.py`) and no thread: messages move when it is asked something. The
engine is never forked.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from smlt.backends.fork_server import CLOSE, GONE, LAUNCH, READY, STARTED, STOP, UNUSABLE, Link, Order, Report
from smlt.core import wire
from smlt.core.backend import FunctionState, Launcher, Phase, RankSpec, RunPlace
from smlt.core.errors import JobFailed, PluginError, SmltError

WORKER = "smlt.core.worker:work"
_STOP_S = 10.0
_TAIL = 2000


class ProcessLauncher(Launcher):
    """Starts functions as processes of this machine; each prints into `<runs_dir>/<run>/logs/<label>.txt`.

    A handle is the label of the spec. The constructor returns at once; the server imports meanwhile.

    Args:
        place: the run; `preload` names the frameworks that functions find imported.
        entry: "module:function" that a function runs with its spec.
    """

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

    def _start_server(self) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-P",
            "-m",
            "smlt.backends.fork_server",
            str(theirs.fileno()),
            self._entry,
        ]
        with theirs, (self._logs / "fork_server.txt").open("ab") as log:
            self._server = subprocess.Popen(
                [*command, *self._place.preload],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **_environment(self._place.threads)},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._link = Link(ours)
        self._ready = False
        self._asked = False

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
            PluginError: a framework, or the worker, cannot be imported.
            JobFailed: the server died before it could start anything.
        """
        if self._link.socket.fileno() < 0:
            return
        self._link.flush()
        for body in self._link.receive():
            self._apply(wire.unpack(body, Report))
        if self._link.lost and not self._closed:
            self._server_died()

    def _apply(self, report: Report) -> None:
        if report.event == READY:
            self._ready = True
        elif report.event == UNUSABLE:
            module = report.detail.removeprefix("cannot import ").partition(":")[0]
            extra = module if module in ("torch", "tensorflow", "jax") else ""
            hint = f"pip install 'smlt[{extra}]'" if extra else f"see {self._logs / 'fork_server.txt'}"
            self._failure = PluginError(f"functions cannot start here: {report.detail}", hint)
        elif self._states[report.handle].phase not in (Phase.ENDED, Phase.LOST):
            if report.event == STARTED:
                self._pids[report.handle] = report.pid
                self._states[report.handle] = FunctionState(Phase.RUNNING)
            elif report.event == GONE:
                self._pids.pop(report.handle, None)
                self._states[report.handle] = FunctionState(Phase(report.phase), report.detail)

    def _server_died(self) -> None:
        """Its functions died with it, or do now; `launch` starts another server."""
        for pid in self._pids.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self._pids.clear()
        for handle, state in self._states.items():
            if state.phase in (Phase.PENDING, Phase.RUNNING):
                self._states[handle] = FunctionState(Phase.LOST, "its fork server was killed")
        if self._failure is None and not self._ready:
            code = self._server.wait()
            log = self._logs / "fork_server.txt"
            tail = log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()
            self._failure = JobFailed(
                f"the fork server ended with exit code {code} before it was ready: {tail}", f"see {log}"
            )
        if self._failure is not None:
            raise self._failure

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
        for pid in self._pids.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self._pids.clear()


def _environment(threads: int) -> dict[str, str]:
    """Thread pools are sized before libraries load; one that starts at import (OpenBLAS) is kept at one thread."""
    sized = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")
    environment = {name: str(threads) for name in sized} | {"OPENBLAS_NUM_THREADS": "1"}
    if sys.platform == "darwin":
        environment["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
    return environment
