"""What a process does to become one function, whoever started it: its own group, its own output, a checked end."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TextIO

from smlt.core.backend import RankSpec
from smlt.core.out_of_memory import is_out_of_memory

OUT_OF_MEMORY_CODE = 71
"""The exit code of a function that came to no word of its own for want of memory."""

# TensorFlow reads these when it is imported; a function that sets them after the fork is too late. oneDNN is its
# default on Linux, two to three times as fast, and gave the same bits in every process.
FRAMEWORK_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
)
"""Variables that frameworks have in functions unless somebody has set them."""


def thread_variables(threads: int) -> dict[str, str]:
    """Variables that size thread pools before libraries load.

    A pool that starts at import (OpenBLAS) is kept at one thread: nothing may run beside the thread that forks.
    """
    sized = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {**dict.fromkeys(sized, str(threads)), "OPENBLAS_NUM_THREADS": "1"}


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
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    print_to(log)
    if log > 2:
        os.close(log)


def print_to(log: int) -> None:
    """Input is empty from now on, and output, C libraries' too, goes to this descriptor as it is printed."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null:
        os.close(null)
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
