"""Functions that a launcher under test starts instead of the worker. They do as `spec.job["act"]` says.

They speak to the test through the run's object store only, so that they run as well on a cloud as on this machine.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from smlt.core import wire
from smlt.core.backend import RankSpec
from smlt.core.plugins import load_registry
from smlt.core.storage import ObjectStore

ENTRY = "smlt.testing.functions:act"
LAST_S = 120.0
"""A function that nobody lets go ends after this, whatever becomes of the test."""


def said(spec: RankSpec, what: str) -> str:
    """The key under which the function of this spec says something, or is told it."""
    return f"contract/{spec.label}/{what}"


def act(spec: RankSpec) -> None:
    """Do what the spec's job asks for; it is packed into the store first, for the test to compare."""
    store = load_registry().open_store(spec.store)
    store.put(said(spec, "spec"), wire.pack(spec))
    _ACTS[spec.job["act"]](spec, store)


def _return(spec: RankSpec, store: ObjectStore) -> None:
    print(f"printed by {spec.label}")


def _wait(spec: RankSpec, store: ObjectStore) -> None:
    last = time.monotonic() + LAST_S
    while not store.exists(said(spec, "go")) and time.monotonic() < last:
        time.sleep(0.01)


def _beat(spec: RankSpec, store: ObjectStore) -> None:
    last = time.monotonic() + LAST_S
    count = 0
    while not store.exists(said(spec, "go")) and time.monotonic() < last:
        count += 1
        store.put(said(spec, "beat"), str(count).encode())
        time.sleep(0.01)


def _raise(spec: RankSpec, store: ObjectStore) -> None:
    raise RuntimeError(f"raised by {spec.label}")


def _exit(spec: RankSpec, store: ObjectStore) -> None:
    raise SystemExit(3)


def _die(spec: RankSpec, store: ObjectStore) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_ACTS: dict[str, Callable[[RankSpec, ObjectStore], None]] = {
    "return": _return,
    "wait": _wait,
    "beat": _beat,
    "raise": _raise,
    "exit": _exit,
    "die": _die,
}
