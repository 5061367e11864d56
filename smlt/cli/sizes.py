"""A task's sizes for a prediction: from the file that is named, from a short while ago, or by building the task now."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smlt.core.backend import Backend
    from smlt.core.job import JobSpec
    from smlt.core.parcel import TaskParcel
    from smlt.core.plugins import Registry
    from smlt.core.profile import Profile

NEXT = ("optuna", "rich.table", "smlt.planners.optuna", "smlt.planners.modelled")
"""What a prediction imports once the sizes are there."""


def sizes_for(
    spec: JobSpec, backend: Backend[Any], parcel: TaskParcel, registry: Registry, file: Profile | None
) -> tuple[Profile, float | None]:
    """The task's profile, and how many seconds ago it was built if that was not now.

    Raises:
        ConfigError: the profile in the file is another task's.
        TaskError: the task cannot be built.
    """
    from smlt.core.planning import profile_for
    from smlt.core.profile_cache import ProfileCache

    if file is not None:
        return profile_for(spec, backend, parcel, registry, file), None
    cache = ProfileCache.of(os.environ)
    kept = cache.find(spec, parcel)
    if kept is not None:
        return kept
    with _importing():
        found = profile_for(spec, backend, parcel, registry)
    cache.keep(spec, parcel, found)
    return found, None


def age_words(age_s: float | None) -> str:
    """What is to be said of sizes that were kept; empty for those of now."""
    from smlt.core.units import format_duration

    if age_s is None:
        return ""
    return f"task: as it was built {format_duration(age_s)} ago, by the same files; `smlt profile` looks again"


@contextmanager
def _importing() -> Iterator[None]:
    """While entered, what is needed next is imported: the process that builds the task is waited for meanwhile."""
    thread = threading.Thread(target=lambda: [importlib.import_module(name) for name in NEXT], daemon=True)
    thread.start()
    yield
    thread.join()
