"""Functions through Lithops: one asynchronous call a rank, made by a process that Lithops has for itself."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from smlt.backends.file_store import UNLISTED
from smlt.backends.lithops.entry import OUTER_TMPDIR
from smlt.backends.lithops.host import remove_private_folder
from smlt.backends.served_launcher import WORKER, ServedLauncher, thread_environment
from smlt.core.backend import RunPlace
from smlt.core.errors import CloudError, SmltError

SPARE_SLOTS = 16
"""Lithops keeps a slot for a call until it has noticed its end; replacements must not wait for that."""

DEPLOY_S = 600.0
"""Packages are collected, uploaded and unpacked in this time."""


class _PrivateFolder(ServedLauncher):
    """Neither the user's Lithops configuration nor folders are read or written: what Lithops keeps lies in a folder of
    the run that is gone after `close`, and after the engine was killed.
    """

    def __init__(self, place: RunPlace, entry: str) -> None:
        self._folder = Path()
        super().__init__(place, entry)

    def _server_arguments(self) -> Sequence[str]:
        parent = private_folders(self._place)
        parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
        return [str(self._folder)]

    def _server_environment(self) -> Mapping[str, str]:
        environment = thread_environment(self._place.threads)
        environment[OUTER_TMPDIR] = os.environ.get("TMPDIR", "")
        environment["TMPDIR"] = str(self._folder)
        for name in [name for name in environment if name.startswith(("LITHOPS_", "__LITHOPS_"))]:
            del environment[name]
        return environment

    def _cannot_start(self, reason: str, hint: str, log: Path) -> SmltError:
        return CloudError(reason, f"{hint}; see {log}" if hint else f"see {log}")

    def _server_released(self) -> None:
        remove_private_folder(self._folder)


class LithopsLauncher(_PrivateFolder):
    """Functions are calls of one `lithops.FunctionExecutor`, on its localhost.

    Args:
        place: the run.
        entry: "module:function" that a function runs with its spec.
        max_workers: most functions at once.
    """

    server = "smlt.backends.lithops.host"

    def __init__(self, place: RunPlace, entry: str = WORKER, *, max_workers: int = 64) -> None:
        self._slots = max_workers + SPARE_SLOTS
        super().__init__(place, entry)

    def _server_arguments(self) -> Sequence[str]:
        return [*super()._server_arguments(), str(self._slots)]

    def _cannot_start(self, reason: str, hint: str, log: Path) -> SmltError:
        return super()._cannot_start(f"Lithops cannot start functions here: {reason}", hint, log)


class CloudLauncher(_PrivateFolder):
    """Functions are calls of one `lithops.FunctionExecutor` on a cloud. What they print stays with the provider.

    The constructor waits until functions of `place.memory_mib` are deployed: it may take a minute, and is no time of
    any function's.

    Args:
        place: the run.
        functions: "module:Class" of the provider's `smlt.backends.lithops.functions.CloudFunctions`.
        settings: for it, as plain data without secrets.
        entry: "module:function" that a function runs with its spec.
        environment: what the provider's own libraries are told here beside the user's environment.

    Raises:
        CloudError: functions cannot be deployed, and why.
    """

    server = "smlt.backends.lithops.cloud_host"

    def __init__(
        self,
        place: RunPlace,
        functions: str,
        settings: Mapping[str, Any],
        entry: str = WORKER,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._functions, self._settings, self._environment = functions, json.dumps(settings), environment
        super().__init__(place, entry)
        self._asked = True
        try:
            if not self._pump_until(lambda: self._ready, DEPLOY_S):
                raise CloudError(f"functions were not deployed within {DEPLOY_S:g} s", f"see {self._server_log}")
        except SmltError:
            self._asked = False  # it has nothing to close in order
            self.close()
            raise

    def _server_environment(self) -> Mapping[str, str]:
        return {**super()._server_environment(), **self._environment}

    def _server_arguments(self) -> Sequence[str]:
        return [*super()._server_arguments(), self._functions, self._settings, str(self._place.memory_mib)]


def private_folders(place: RunPlace) -> Path:
    """Where Lithops' own files of a run lie while it runs."""
    return place.runs_dir.absolute() / place.run / UNLISTED / "lithops"


def clean_private_folders(place: RunPlace) -> list[str]:
    """Remove Lithops' files of a run, should everything have been killed at once; returns what was removed."""
    folders = private_folders(place)
    removed = [str(folders)] if folders.is_dir() else []
    shutil.rmtree(folders, ignore_errors=True)
    return removed
