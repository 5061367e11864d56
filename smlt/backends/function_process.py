"""What a process does to become one function, whoever started it: its own group, its own output, a checked end."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import TextIO

from smlt.core.backend import RankSpec
from smlt.core.out_of_memory import is_out_of_memory

OUT_OF_MEMORY_CODE = 71
"""The exit code of a function that came to no word of its own for want of memory."""


def die_with_parent(parent: int) -> bool:
    """On Linux the kernel ends this process when `parent` is killed; false if it is dead already.

    Elsewhere there is no such call, and a launcher kills the functions of a dead server by their pids.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    return os.getppid() == parent


def take_over_output(log_path: str) -> None:
    """Input is empty from now on, and output, C libraries' too, goes to the end of the log as it is printed."""
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for source in {null, log} - {0, 1, 2}:
        os.close(source)
    sys.stdout, sys.stderr = _lines_to(1), _lines_to(2)


def _lines_to(number: int) -> TextIO:
    return os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def run_entry(entry: str, spec: RankSpec) -> int:
    """Call "module:function" with the spec; returns the exit code, after printing what was raised."""
    module, _, function = entry.partition(":")
    code = 0
    try:
        getattr(importlib.import_module(module), function)(spec)
    except SystemExit as stop:
        if not isinstance(stop.code, int | None):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        traceback.print_exc()
        code = OUT_OF_MEMORY_CODE if is_out_of_memory(error) else 1
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code & 0xFF


def kill_group(pid: int) -> None:
    """SIGKILL to every process of the group that `pid` leads or led; none is no error."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
        os.killpg(pid, signal.SIGKILL)


def how_it_ended(code: int) -> str:
    """Of an exit code as subprocess has it: negative for a signal."""
    if code == OUT_OF_MEMORY_CODE:
        return "its memory did not suffice to begin"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
