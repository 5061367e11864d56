"""Who kills functions: one every so often, every third time one that is READY and waits for its turn."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from smlt.core.run_events import Address
from smlt.core.runlog import RunEvent


class Killer:
    """Kills functions of one run, from a thread; `listen` is to be told the run's events.

    Args:
        every_s: from one kill to the next.
        seed: of the choice.
    """

    def __init__(self, every_s: float, seed: int) -> None:
        self.killed: list[tuple[Address, str]] = []
        self._every_s = every_s
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._ready_is_there = threading.Event()
        self._generation = 0
        self._waiting: set[Address] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ready_is_there.set()
        self._thread.join()

    def listen(self, event: RunEvent) -> None:
        """An event of the run; READY is a rank of a generation that does not train yet."""
        if event.kind == "round_opened":
            self._generation = event.data["generation"]
            self._waiting = {address for address in self._waiting if address.generation > self._generation}
        elif event.kind == "ready" and 0 < self._generation < event.data["generation"]:
            self._waiting.add(_address(event))
        elif event.kind in ("lost", "exited"):
            self._waiting.discard(_address(event))
        (self._ready_is_there.set if self._waiting else self._ready_is_there.clear)()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            if len(self.killed) % 3 == 2:  # as many as there are hand-overs, which take their time
                self._ready_is_there.wait(4 * self._every_s)
            if not self._over.is_set():
                self._kill_one()

    def _kill_one(self) -> None:
        running = functions_of(os.getpid())
        ready = sorted(self._waiting & running.keys())
        candidates = ready if ready and len(self.killed) % 3 == 2 else sorted(running)
        if not candidates:
            return
        victim = self._random.choice(candidates)
        with suppress(ProcessLookupError):
            os.kill(running[victim], signal.SIGKILL)
            self.killed.append((victim, "READY" if victim in ready else "training or starting"))


def functions_of(engine: int) -> dict[Address, int]:
    """The processes of all functions that an engine's process has started, by the names of their logs."""
    found: dict[Address, int] = {}
    for process in psutil.Process(engine).children(recursive=True):
        with suppress(psutil.Error, OSError, ValueError):
            log = Path(f"/proc/{process.pid}/fd/1").readlink()
            generation, rank, incarnation = map(int, log.stem.partition("#")[0].split("."))
            found[Address(generation, rank, incarnation)] = process.pid
    return found


def _address(event: RunEvent) -> Address:
    return Address(event.data["generation"], event.data["rank"], event.data["incarnation"])
