"""The process that Lithops lives in: one FunctionExecutor, one asynchronous call a rank. LithopsLauncher's other end.

Lithops keeps folders, threads, loggers and exit handlers, reads the user's configuration, and cannot cancel; here none
of that reaches the engine. We ask it to call and to say how a call ended; watching and stopping are ours.
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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smlt.backends.function_process import OUT_OF_MEMORY_CODE, how_it_ended, kill_group
from smlt.backends.link import CLOSE, GONE, LAUNCH, READY, STARTED, STOP, UNUSABLE, Link, Order, Report
from smlt.backends.lithops import entry as lithops_entry
from smlt.core import wire
from smlt.core.backend import Phase, RankSpec

_TICK_S = 0.05
_SILENT_S = 3.0
_LONGEST_S = 20 * 24 * 3600


@dataclass
class _Call:
    handle: str
    spec: RankSpec
    future: Any
    pid: int = 0
    deadline: float = float("inf")
    vanished: float = float("inf")


class LithopsHost:
    """Calls, watches and ends functions, as orders, Lithops and clocks say."""

    def __init__(self, link: Link, executor: Any, entry: str, after_grace_s: float, marks: Path) -> None:
        self._link = link
        self._executor = executor
        self._entry = entry
        self._after_grace_s = after_grace_s
        self._marks = marks
        self._calls: dict[str, _Call] = {}
        self._closing = False
        self._orphaned = False

    def run(self) -> None:
        """Serve until the launcher closes, or is gone and no function is left."""
        self._link.send(Report(READY))
        while self._calls or not (self._closing or self._link.lost):
            if self._link.lost:
                time.sleep(_TICK_S)
            else:
                self._link.wait(_TICK_S if self._calls else None)
            self._link.flush()
            for body in self._link.receive():
                self._obey(wire.unpack(body, Order))
            if self._link.lost and not self._orphaned:
                self._orphan()
            for call in list(self._calls.values()):
                self._watch(call)

    def _obey(self, order: Order) -> None:
        if order.action == LAUNCH and order.spec is not None and not self._link.lost:
            self._launch(order, order.spec)
        elif order.action == STOP and order.handle in self._calls:
            self._end(self._calls[order.handle], "stopped")
        elif order.action == CLOSE:
            self._closing = True
            for call in list(self._calls.values()):
                self._end(call, "stopped")

    def _launch(self, order: Order, spec: RankSpec) -> None:
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

    def _orphan(self) -> None:
        self._orphaned = True
        for call in self._calls.values():
            call.deadline = min(call.deadline, time.monotonic() + call.spec.orphan_grace_s + self._after_grace_s)

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
            limited = call.spec.time_limit_s is not None and not self._orphaned
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
        """Now: one that has not started finds the mark and returns; one that runs is killed, and Lithops reaps it."""
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


def _executor(folder: Path, slots: int) -> Any:
    """The executor, from an explicit configuration without keys, in folders of its own, silent."""
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
    return lithops.FunctionExecutor(
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


def main(arguments: list[str]) -> None:
    """`python -m smlt.backends.lithops.host FD MODULE:FUNCTION AFTER_GRACE_S FOLDER SLOTS`."""
    number, entry, after_grace_s, path, slots = arguments
    link, folder = Link(socket.socket(fileno=int(number))), Path(path)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    marks = folder / "marks"
    marks.mkdir(parents=True)
    executor, code = None, 1
    try:
        try:
            executor = _executor(folder, int(slots))
            executor.invoker.select_runtime("warm", None)  # asked for by the first call otherwise
        except Exception as error:  # whatever Lithops raises; the launcher makes it an error of ours
            link.send(Report(UNUSABLE, detail=f"{type(error).__name__}: {error}"))
            raise
        LithopsHost(link, executor, entry, float(after_grace_s), marks).run()
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


if __name__ == "__main__":
    main(sys.argv[1:])
