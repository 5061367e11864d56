"""How the memory of the engine's process grows, and what a run leaves behind."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from smlt.backends.channels.shared_memory import spec_for
from smlt.backends.file_store import folder_of
from smlt.core.backend import RunPlace


class Scale:
    """Weighs this process every `every_s` seconds, from a thread."""

    def __init__(self, every_s: float = 2.0) -> None:
        self.samples: list[tuple[float, float]] = []
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Scale:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def slope_mb_min(self, after_s: float) -> float:
        """MB a minute, by least squares over the samples from `after_s` seconds on."""
        late = [(seconds / 60, size) for seconds, size in self.samples if seconds >= after_s]
        return float(np.polyfit(*zip(*late, strict=True), 1)[0]) if len(late) > 2 else float("nan")

    def _run(self) -> None:
        began, process = time.monotonic(), psutil.Process()
        while not self._over.wait(self._every_s):
            self.samples.append((time.monotonic() - began, process.memory_info().rss / 1e6))


class Belongings:
    """What a process has besides memory, at one moment: children, threads, open files, a run's files in shared memory.

    Args:
        place: of the run.
    """

    def __init__(self, place: RunPlace) -> None:
        process = psutil.Process()
        self._has = {
            "processes": {str(child.pid) for child in process.children(recursive=True)},
            "threads": {str(thread.ident) for thread in threading.enumerate()},
            "descriptors": {f"{entry.name}" for entry in os.scandir("/proc/self/fd")},
            "segments": _files(folder_of(spec_for(place).url)),
        }

    def left_since(self, before: Belongings) -> dict[str, list[str]]:
        """What there is now and was not there before; nothing of it should be."""
        return {kind: sorted(now - before._has[kind]) for kind, now in self._has.items() if now - before._has[kind]}


def litter_of(run: Path) -> list[str]:
    """Files of a finished run's folder that nobody will read again: mail, what a write left, channels, old states."""
    litter = [path for path in _files(run) if "/mail/" in path or Path(path).name.startswith(".")]
    kept = sorted((run / "checkpoints").iterdir())[:-2]
    return sorted([*litter, *map(str, kept)])


def _files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file()}
