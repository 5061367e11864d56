"""Sizes of tasks that were built a short while ago, in the user's cache folder: the next plan need not build again.

A task may read what no digest covers (a file outside its folder, a download), so nothing is kept for long, and whoever
uses a kept size says so.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from smlt.core import strict_json
from smlt.core.errors import ConfigError
from smlt.core.job import JobSpec
from smlt.core.parcel import TaskParcel
from smlt.core.profile import Profile, read_profile, settings_of
from smlt.core.versions import versions

KEPT_S = 3600.0


@dataclass(frozen=True)
class ProfileCache:
    """Profiles by what they depend on.

    Attributes:
        folder: where they are kept.
        clock: seconds since the Unix epoch.
    """

    folder: Path
    clock: Callable[[], float] = time.time

    @classmethod
    def of(cls, env: Mapping[str, str]) -> ProfileCache:
        """The user's own: `smlt/profiles` in XDG_CACHE_HOME, which is `~/.cache` unless set."""
        home = Path(env["HOME"]) if env.get("HOME") else Path.home()
        return cls(Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "smlt" / "profiles")

    def find(self, spec: JobSpec, parcel: TaskParcel) -> tuple[Profile, float] | None:
        """The profile of just this code with these settings, and its age in seconds; None where there is none."""
        path = self._path(spec, parcel)
        try:
            age_s = self.clock() - path.stat().st_mtime
            return (read_profile(path), max(age_s, 0.0)) if age_s < KEPT_S else None
        except (OSError, ConfigError):  # gone, or of another smlt
            return None

    def keep(self, spec: JobSpec, parcel: TaskParcel, profile: Profile) -> None:
        """Keep a profile, and forget those that are too old; a folder that cannot be written keeps nothing."""
        path = self._path(spec, parcel)
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            for old in self.folder.glob("*.json"):
                if self.clock() - old.stat().st_mtime >= KEPT_S:
                    old.unlink(missing_ok=True)
            beside = path.with_suffix(".new")
            beside.write_text(profile.to_json(), encoding="utf-8")
            beside.replace(path)

    def _path(self, spec: JobSpec, parcel: TaskParcel) -> Path:
        told = [parcel.sha256, spec.job.task, settings_of(spec), spec.job.seed, versions()]
        return self.folder / f"{hashlib.sha256(strict_json.dumps(told).encode()).hexdigest()}.json"
