"""What tests of launchers share: functions to launch, an engine to kill, and looking at processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from smlt.core import wire
from smlt.core.backend import FunctionState, Launcher, Phase, RankSpec
from smlt.testing.backend import eventually

ROOT = Path(__file__).parents[2]
"""For PYTHONPATH: functions import this module by its name."""

# Functions; each writes what it has to say into files of its scratch folder.


def look_around(spec: RankSpec) -> None:
    descriptors = sorted(int(entry.name) for entry in Path("/dev/fd").iterdir())
    facts = {
        "descriptors": descriptors,
        "preloaded": "colorsys" in sys.modules,
        "input": sys.stdin.read(),
        "leads its session": os.getsid(0) == os.getpid() == os.getpgid(0),
        "threads": os.environ["OMP_NUM_THREADS"],
        "home": os.environ.get("HOME"),
        "temporary": os.environ.get("TMPDIR"),
    }
    note(spec, "facts", repr(facts))
    os.write(1, b"from below\n")


def leave_a_child(spec: RankSpec) -> None:
    note(spec, "child", str(_sleeper().pid))
    os._exit(0)


def wait_for_a_child(spec: RankSpec) -> None:
    child = _sleeper()
    note(spec, "child", str(child.pid))
    child.wait()


def stay(spec: RankSpec) -> None:
    note(spec, f"rank{spec.rank}", str(os.getpid()))
    signal.pause()


def leave_when_told(spec: RankSpec) -> None:
    note(spec, f"rank{spec.rank}", str(os.getpid()))
    while not Path(spec.scratch, "leave").exists():
        time.sleep(0.01)
    note(spec, "left", "0")


def note(spec: RankSpec, name: str, text: str) -> None:
    draft = Path(spec.scratch, f".{name}.{spec.rank}")
    draft.write_text(text)
    draft.rename(Path(spec.scratch, name))


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])


def entry_of(function) -> str:
    return f"{__name__}:{function.__name__}"


# Looking


def wait_over(launcher: Launcher, handle: str) -> FunctionState:
    eventually(lambda: launcher.poll([handle])[handle].phase in (Phase.ENDED, Phase.LOST), 30, f"{handle} is over")
    return launcher.poll([handle])[handle]


def wait_note(spec: RankSpec, name: str) -> str:
    path = Path(spec.scratch, name)
    eventually(path.exists, 30, f"a function noted {name}")
    return path.read_text()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_gone(*pids: int, timeout_s: float = 15) -> None:
    eventually(lambda: not any(is_running(pid) for pid in pids), timeout_s, f"processes {pids} are gone")


# An engine to kill

_ENGINE = """
import importlib, sys, time
from pathlib import Path
from smlt.core import wire
from smlt.core.backend import RankSpec, RunPlace

module, name, runs_dir, entry, *specs = sys.argv[1:]
launcher_class = getattr(importlib.import_module(module), name)
launcher_class.after_grace_s = 0.5
launcher = launcher_class(RunPlace("run", Path(runs_dir)), entry)
for path in specs:
    launcher.launch(wire.unpack(Path(path).read_bytes(), RankSpec))
while True:
    launcher.poll([])
    time.sleep(0.01)
"""


@contextmanager
def engine(launcher_class: type[Launcher], runs_dir: Path, function, *specs: RankSpec) -> Iterator[psutil.Process]:
    """A process that launches these and polls for ever; it is killed at the end."""
    paths = []
    for number, spec in enumerate(specs):
        paths.append(Path(spec.scratch, f"{number}.spec"))
        paths[-1].write_bytes(wire.pack(spec))
    names = [launcher_class.__module__, launcher_class.__name__, str(runs_dir), entry_of(function)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _ENGINE, *names, *map(str, paths)]
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.kill()
