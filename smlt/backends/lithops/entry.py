"""What Lithops calls in a function: it becomes a process group of its own, leaves a mark, and runs the rank."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from smlt.backends.function_process import die_with_parent, run_entry, take_over_output
from smlt.core import wire
from smlt.core.backend import RankSpec

OUTER_TMPDIR = "SMLT_OUTER_TMPDIR"
"""Where the user's TMPDIR is kept while Lithops' own files go to a folder of the run."""


def mark_of(marks: Path, handle: str, kind: str) -> Path:
    """The file that says a function's `pid`, or that it is to `stop`."""
    return marks / f"{handle}.{kind}"


def run(entry: str, packed: bytes, marks: str, handle: str, log_path: str) -> int:
    """Run "module:function" with a packed RankSpec; returns an exit code, for an exception stays in the log.

    It says its pid before it looks whether it is to stop, the host says stop before it looks for a pid: one sees the
    other.
    """
    os.setsid()
    if not die_with_parent(os.getppid()):
        return 1
    _restore_environment()
    mark, stop = mark_of(Path(marks), handle, "pid"), mark_of(Path(marks), handle, "stop")
    draft = mark.with_suffix(".draft")
    draft.write_text(str(os.getpid()), encoding="ascii")
    draft.rename(mark)
    if stop.exists():
        return 0
    lithops_streams = sys.stdout, sys.stderr
    take_over_output(log_path)
    code = run_entry(entry, wire.unpack(packed, RankSpec))
    sys.stdout, sys.stderr = lithops_streams
    return code


def _restore_environment() -> None:
    outer = os.environ.pop(OUTER_TMPDIR, "")
    if outer:
        os.environ["TMPDIR"] = outer
    else:
        os.environ.pop("TMPDIR", None)
    tempfile.tempdir = None
