"""The process that Lithops lives in when functions run on a cloud; CloudLauncher's other end.

Lithops deploys and calls. That a call runs, how it ended and that it is to end are said through the run's store
(`calls`), for Lithops does not hear of a sandbox that died, and cannot stop one. Of each call its own word counts;
Lithops' counts where there is none, as when the function cannot even import.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import socket
import sys
import threading
import time
import traceback
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smlt.backends.link import GONE, STARTED, UNUSABLE, Link, Order, Report
from smlt.backends.lithops import supervised
from smlt.backends.lithops.calls import CallBoard, CallState
from smlt.backends.lithops.functions import CloudFunctions
from smlt.backends.lithops.host import Host, imported_lithops, serve
from smlt.core import wire
from smlt.core.backend import Phase, RankSpec
from smlt.core.errors import CloudError, StorageError
from smlt.core.plugins import load_registry

LOOK_S = 0.4
"""Between two looks at what a call says."""

LOOKERS = 16
"""Calls that are looked at side by side."""

STOP_S = 4.0
"""A call that was told to stop and has not said so by then is taken for dead, with its sandbox."""

MONITORING_S = 5.0
"""Lithops lists its own objects of every call so often, and each listing costs as much as a write."""


@dataclass
class _Call:
    handle: str
    spec: RankSpec
    placing: Future[Any]
    has_started: bool = False
    looked_at: float = 0.0
    deadline: float = float("inf")
    ending: str = ""
    given_up_at: float = float("inf")


@dataclass(frozen=True)
class _Seen:
    """Of a call: whether Lithops has seen it return, and after that what it has said itself."""

    has_returned: bool
    state: CallState | None


class CloudHost(Host):
    """Places calls in a thread, for deploying takes its time; and watches and ends them."""

    def __init__(
        self, link: Link, executor: Any, entry: str, after_grace_s: float, functions: CloudFunctions, run: str
    ) -> None:
        super().__init__(link, after_grace_s)
        self._executor, self._entry, self._functions = executor, entry, functions
        self._calls: dict[str, _Call] = {}
        self._placing = ThreadPoolExecutor(1, "smlt-placing")
        self._looking = ThreadPoolExecutor(LOOKERS, "smlt-looking")
        self._folder = f"calls/{run}"
        self._boards: dict[str, CallBoard] = {}
        self._lock = threading.Lock()
        self._unusable = self._has_given_up = False

    def launch(self, order: Order, spec: RankSpec) -> None:
        """Have a call placed."""
        self._calls[order.handle] = _Call(order.handle, spec, self._placing.submit(self._place, order.handle, spec))

    def end(self, handle: str, reason: str) -> None:
        """Tell a call to end; it is gone once it says so, or has had the time to."""
        call = self._calls.get(handle)
        if call is None or call.ending:
            return
        call.ending = reason if call.has_started else f"{reason} before it started"
        call.given_up_at = time.monotonic() + STOP_S
        if call.placing.cancel():
            self._gone(call, Phase.LOST, call.ending)
            return
        with suppress(StorageError):
            self._board(call.spec).stop(handle)

    def orphan(self, handle: str, deadline: float) -> None:
        """No controller is there: end a call that has not left by then."""
        call = self._calls[handle]
        call.deadline = min(call.deadline, deadline)

    @property
    def handles(self) -> list[str]:
        """Of calls that may run."""
        return list(self._calls)

    def watch(self) -> None:
        """Look at every call; at those that are under way, side by side."""
        now, due = time.monotonic(), list[_Call]()
        for call in list(self._calls.values()):
            if not call.placing.done():
                if call.given_up_at <= now:
                    self._give_up(call)
            elif now - call.looked_at >= LOOK_S and self._was_taken(call):
                due.append(call)
        for call, seen in zip(due, self._looking.map(self._look, due), strict=True):
            call.looked_at = now
            self._judge(call, seen, now)

    def clear(self) -> None:
        """Remove what calls said, and what Lithops wrote of them."""
        self._placing.shutdown(cancel_futures=True)
        for board in [] if self._has_given_up else self._boards.values():
            with suppress(StorageError):
                board.clear()
        storage = self._executor.internal_storage
        keys = storage.storage.list_keys(storage.bucket, f"lithops.jobs/{self._executor.executor_id}")
        if keys:
            storage.storage.delete_objects(storage.bucket, keys)

    def _place(self, handle: str, spec: RankSpec) -> Any:
        self._functions.deploy(self._executor, spec.memory_mib)
        # Ours is exact; Lithops' comes after it, should ours fail.
        limit_s = None if spec.time_limit_s is None else math.ceil(spec.time_limit_s) + 60
        return self._executor.call_async(
            supervised.run,
            (self._entry, wire.pack(spec), self._folder, handle),
            runtime_memory=spec.memory_mib,
            timeout=limit_s,
            include_modules=None,
        )

    def _was_taken(self, call: _Call) -> bool:
        """Whether the provider took a call that was placed; one that it did not take is gone."""
        error = call.placing.exception() or self._functions.refused.pop(call.placing.result().job_id, None)
        if error is None:
            return True
        explained = self._functions.explain(error)
        if not self._functions.passes(error):
            self._fail(explained)
        self._gone(call, Phase.LOST, explained.message)
        return False

    def _look(self, call: _Call) -> _Seen | None:
        """What there is to see of a call; None where the store is out of reach."""
        future = call.placing.result()
        # Before its own word is read: what Lithops has seen the end of has said its last one.
        has_returned = bool(future.ready or future.success or future.done)
        try:
            return _Seen(has_returned, self._board(call.spec).state(call.handle))
        except StorageError:
            return None

    def _judge(self, call: _Call, seen: _Seen | None, now: float) -> None:
        state = seen.state if seen else None
        if state is not None and not call.has_started:
            call.has_started = True
            self._link.send(Report(STARTED, call.handle))
        if state is not None and state.is_over:
            self._gone(call, Phase(state.phase), state.detail, state.out_of_memory)
        elif seen is not None and seen.has_returned:
            self._gone(call, Phase.LOST, self._last_word_of(call.placing.result()))
        elif call.given_up_at <= now:
            self._give_up(call)
        elif call.deadline <= now:
            self.end(call.handle, "its controller was gone")

    def _last_word_of(self, future: Any) -> str:
        """Of a call that returned without a word of its own: what Lithops says of it."""
        try:
            future.status(throw_except=False, internal_storage=self._executor.internal_storage)
            return str(future._exception[1]) if future.error else "it returned without a word"
        except Exception as error:  # whatever Lithops raises: how one call ended is not worth the others
            traceback.print_exc()
            return f"Lithops cannot say how it ended: {type(error).__name__}"

    def _give_up(self, call: _Call) -> None:
        """Should it run after all, it finds that it is to stop."""
        self._has_given_up = True
        self._gone(call, Phase.LOST, call.ending)

    def _fail(self, error: CloudError) -> None:
        if not self._unusable:
            self._unusable = True
            self._link.send(Report(UNUSABLE, detail=error.message, hint=error.hint))

    def _gone(self, call: _Call, phase: Phase, detail: str, out_of_memory: bool = False) -> None:
        del self._calls[call.handle]
        self._link.send(Report(GONE, call.handle, 0, phase.value, detail, out_of_memory))

    def _board(self, spec: RankSpec) -> CallBoard:
        with self._lock:
            if spec.store.url not in self._boards:
                self._boards[spec.store.url] = CallBoard(load_registry().open_store(spec.store), self._folder)
            return self._boards[spec.store.url]


def main(arguments: list[str]) -> None:
    """`python -m smlt.backends.lithops.cloud_host FD ENTRY AFTER_GRACE_S FOLDER MODULE:CLASS SETTINGS MEMORY_MIB`."""
    number, entry, after_grace_s, path, provider, settings, memory_mib = arguments
    link, folder = Link(socket.socket(fileno=int(number))), Path(path)

    os.chdir(folder)  # Lithops packs what it deploys in the working folder, under a fixed name

    def open_host() -> tuple[Host, Any]:
        module, _, name = provider.partition(":")
        functions: CloudFunctions = getattr(importlib.import_module(module), name)(json.loads(settings), folder)
        try:
            config = functions.config()
            config["lithops"] |= {"data_cleaner": False, "monitoring_interval": MONITORING_S, "telemetry": False}
            executor = imported_lithops(folder).FunctionExecutor(config=config, log_level=None)
            functions.prepare(executor)
            if int(memory_mib):
                functions.deploy(executor, int(memory_mib))
        except Exception as error:
            traceback.print_exc()
            raise functions.explain(error) from error
        return CloudHost(link, executor, entry, float(after_grace_s), functions, uuid.uuid4().hex[:12]), executor

    serve(link, folder, open_host)


if __name__ == "__main__":
    main(sys.argv[1:])
