"""The process that Lithops lives in: one FunctionExecutor, one asynchronous call a rank. LithopsLauncher's other end.

Lithops keeps folders, threads, loggers and exit handlers, reads the user's configuration, and cannot cancel; here none
of that reaches the engine. We ask it to call and to say how a call ended; watching and stopping are ours. `Host` is
what holds wherever functions run, `LithopsHost` is for Lithops' localhost.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smlt.backends.function_process import OUT_OF_MEMORY_CODE, how_it_ended, kill_group
from smlt.backends.link import CLOSE, GONE, LAUNCH, READY, STARTED, STOP, UNUSABLE, Link, Order, Report
from smlt.backends.lithops import entry as lithops_entry
from smlt.core import wire
from smlt.core.backend import Phase, RankSpec
from smlt.core.errors import SmltError

_TICK_S = 0.05
_SILENT_S = 3.0
_LONGEST_S = 20 * 24 * 3600


class Host(ABC):
    """Serves one launcher: obeys its orders, and watches calls until none is left.

    Args:
        link: to the launcher.
        after_grace_s: a call that has not left so long after its orphan grace is ended.
    """

    def __init__(self, link: Link, after_grace_s: float) -> None:
        self._link, self._after_grace_s = link, after_grace_s

    @abstractmethod
    def launch(self, order: Order, spec: RankSpec) -> None:
        """Begin a call."""

    @abstractmethod
    def end(self, handle: str, reason: str) -> None:
        """End a call; none of this name, or one that ends already, is no error."""

    @abstractmethod
    def orphan(self, handle: str, deadline: float) -> None:
        """Nobody waits for a call any more: end it at this monotonic time."""

    @property
    @abstractmethod
    def handles(self) -> list[str]:
        """Of calls that may run."""

    @abstractmethod
    def watch(self) -> None:
        """Look at every call once, and report what has changed."""

    @abstractmethod
    def clear(self) -> None:
        """Remove what calls have left outside the private folder; none runs any more."""

    def run(self) -> None:
        """Serve until the launcher closes, or is gone and no function is left."""
        self._link.send(Report(READY))
        is_closing = is_orphaned = False
        grace_s: dict[str, float] = {}
        while self.handles or not (is_closing or self._link.lost):
            if self._link.lost:
                time.sleep(_TICK_S)
            else:
                self._link.wait(_TICK_S if self.handles else None)
            self._link.flush()
            for body in self._link.receive():
                order = wire.unpack(body, Order)
                if order.action == LAUNCH and order.spec is not None and not self._link.lost:
                    grace_s[order.handle] = order.spec.orphan_grace_s
                    self.launch(order, order.spec)
                elif order.action == STOP:
                    self.end(order.handle, "stopped")
                elif order.action == CLOSE:
                    is_closing = True
                    for handle in self.handles:
                        self.end(handle, "stopped")
            if self._link.lost and not is_orphaned:
                is_orphaned = True
                for handle in self.handles:
                    self.orphan(handle, time.monotonic() + grace_s[handle] + self._after_grace_s)
            self.watch()


@dataclass
class _Call:
    handle: str
    spec: RankSpec
    future: Any
    pid: int = 0
    deadline: float = float("inf")
    is_orphaned: bool = False
    vanished: float = float("inf")


class LithopsHost(Host):
    """Calls, watches and ends functions of this machine, as orders, Lithops and clocks say."""

    def __init__(self, link: Link, executor: Any, entry: str, after_grace_s: float, marks: Path) -> None:
        super().__init__(link, after_grace_s)
        self._executor = executor
        self._entry = entry
        self._marks = marks
        self._calls: dict[str, _Call] = {}

    @property
    def handles(self) -> list[str]:
        """Of calls that may run."""
        return list(self._calls)

    def launch(self, order: Order, spec: RankSpec) -> None:
        """Call."""
        arguments = (self._entry, wire.pack(spec), str(self._marks), order.handle, order.log_path)
        # Our own deadline is exact and kills the whole group; Lithops' comes after it, should ours fail.
        limit_s = _LONGEST_S if spec.time_limit_s is None else math.ceil(spec.time_limit_s) + 60
        try:
            future = self._executor.call_async(lithops_entry.run, arguments, timeout=limit_s, include_modules=None)
        except Exception as error:  # whatever Lithops raises; the launcher makes it an error of ours
            traceback.print_exc()
            self._link.send(
                Report(GONE, order.handle, 0, Phase.LOST.value, f"Lithops: {type(error).__name__}: {error}")
            )
            return
        self._calls[order.handle] = _Call(order.handle, spec, future)

    def end(self, handle: str, reason: str) -> None:
        """Now: one that has not started finds the mark and returns; one that runs is killed, and Lithops reaps it."""
        if (call := self._calls.get(handle)) is not None:
            self._end(call, reason)

    def orphan(self, handle: str, deadline: float) -> None:
        """Its deadline is no later than this."""
        call = self._calls[handle]
        call.is_orphaned, call.deadline = True, min(call.deadline, deadline)

    def watch(self) -> None:
        """Look at every call."""
        for call in list(self._calls.values()):
            self._watch(call)

    def clear(self) -> None:
        """Nothing is."""

    def _watch(self, call: _Call) -> None:
        now = time.monotonic()
        if not call.pid and (pid := self._pid(call)):
            call.pid = pid
            if call.spec.time_limit_s is not None:
                call.deadline = min(call.deadline, now + call.spec.time_limit_s)
            self._link.send(Report(STARTED, call.handle, pid))
        if call.future.ready or call.future.success or call.future.done:
            self._gone(call, *self._outcome(call.future))
        elif call.deadline <= now:
            limited = call.spec.time_limit_s is not None and not call.is_orphaned
            reason = (
                f"killed at its time limit of {call.spec.time_limit_s:g} s" if limited else "its controller was gone"
            )
            self._end(call, reason)
        elif call.pid and not _alive(call.pid):
            # Lithops says how a function ended, unless its own process was killed too: then nobody would.
            call.vanished = min(call.vanished, now + _SILENT_S)
            if call.vanished <= now:
                self._gone(call, Phase.LOST, "killed, and Lithops' process with it")

    def _pid(self, call: _Call) -> int:
        try:
            return int(lithops_entry.mark_of(self._marks, call.handle, "pid").read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0

    def _outcome(self, future: Any) -> tuple[Phase, str, bool]:
        storage = self._executor.internal_storage
        try:
            future.status(throw_except=False, internal_storage=storage)
            if future.error:
                text = str(future._exception[1])
                return Phase.LOST, how_it_ended(-signal.SIGKILL) if "SIGKILL" in text else text, False
            code = future.result(throw_except=False, internal_storage=storage)
        except Exception as error:  # whatever Lithops raises: how one call ended is not worth the others
            traceback.print_exc()
            return Phase.LOST, f"Lithops cannot say how it ended: {type(error).__name__}: {error}", False
        short = code == OUT_OF_MEMORY_CODE
        return (Phase.ENDED, "", False) if code == 0 else (Phase.LOST, how_it_ended(code), short)

    def _end(self, call: _Call, reason: str) -> None:
        lithops_entry.mark_of(self._marks, call.handle, "stop").touch()
        call.pid = call.pid or self._pid(call)
        last = time.monotonic() + _SILENT_S
        while call.pid and _alive(call.pid) and time.monotonic() < last:
            kill_group(call.pid)
            time.sleep(0.002)
        self._gone(call, Phase.LOST, reason if call.pid else "stopped before it started")

    def _gone(self, call: _Call, phase: Phase, detail: str, out_of_memory: bool = False) -> None:
        del self._calls[call.handle]
        if call.pid:
            kill_group(call.pid)  # what it started itself, a data loader's processes for example
        self._link.send(Report(GONE, call.handle, call.pid, phase.value, detail, out_of_memory))


def remove_private_folder(folder: Path) -> None:
    """Remove the folder of an ended host, and the one around it unless another's lies there."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def imported_lithops(folder: Path) -> Any:
    """Lithops, with folders of its own and none of the user's."""
    # Lithops fixes its folders when it is imported, by HOME and TMPDIR; functions get the real HOME back.
    home = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    try:
        lithops = importlib.import_module("lithops")
        importlib.import_module("lithops.constants")
    finally:
        os.environ.pop("HOME")
        if home is not None:
            os.environ["HOME"] = home
    return lithops


def _executor(folder: Path, slots: int) -> Any:
    """The executor, from an explicit configuration without keys, in folders of its own, silent."""
    executor = imported_lithops(folder).FunctionExecutor(
        config={
            "lithops": {
                "backend": "localhost",
                "storage": "localhost",
                "data_cleaner": False,  # with it, a call that follows a wait closely is never run
                "execution_timeout": _LONGEST_S,
                "monitoring_interval": 0.1,
                "telemetry": False,
            },
            "localhost": {"version": 2, "runtime": sys.executable, "worker_processes": slots},
        },
        log_level=None,
    )
    executor.invoker.select_runtime("warm", None)  # asked for by the first call otherwise
    return executor


def serve(link: Link, folder: Path, open_host: Callable[[], tuple[Host, Any]]) -> None:
    """Open a host and its executor, serve a launcher until the end, and leave nothing; does not return.

    Where it cannot be opened, the launcher is told why; of an error that is none of ours, as Lithops says it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    executor, code = None, 1
    try:
        try:
            host, executor = open_host()
        except SmltError as error:
            link.send(Report(UNUSABLE, detail=error.message, hint=error.hint))
            raise
        except Exception as error:  # whatever Lithops raises; the launcher makes it an error of ours
            link.send(Report(UNUSABLE, detail=f"{type(error).__name__}: {error}"))
            raise
        host.run()
        host.clear()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        if executor is not None:
            with suppress(Exception):
                executor.__exit__(None, None, None)  # ends its processes, and waits for them
        remove_private_folder(folder)
        sys.stderr.flush()
        os._exit(code)  # its exit handlers have nothing left to do, and would wait for its threads


def main(arguments: list[str]) -> None:
    """`python -m smlt.backends.lithops.host FD MODULE:FUNCTION AFTER_GRACE_S FOLDER SLOTS`."""
    number, entry, after_grace_s, path, slots = arguments
    link, folder = Link(socket.socket(fileno=int(number))), Path(path)

    def open_host() -> tuple[Host, Any]:
        marks = folder / "marks"
        marks.mkdir(parents=True)
        executor = _executor(folder, int(slots))
        return LithopsHost(link, executor, entry, float(after_grace_s), marks), executor

    serve(link, folder, open_host)


if __name__ == "__main__":
    main(sys.argv[1:])
