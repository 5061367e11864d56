"""The local launcher: a function is a plain process, forked from a server that has the framework imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from smlt.backends.served_launcher import ServedLauncher, thread_environment
from smlt.core.errors import PluginError, SmltError

EXTRAS = ("torch", "tensorflow", "jax")


class ProcessLauncher(ServedLauncher):
    """Functions are forks of `fork_server.py`, which imports `place.preload` first."""

    server = "smlt.backends.fork_server"

    def _server_arguments(self) -> Sequence[str]:
        return self._place.preload

    def _server_environment(self) -> Mapping[str, str]:
        # TensorFlow reads these when it is imported; a function that sets them after the fork is too late. oneDNN is
        # its default on Linux, two to three times as fast, and gave the same bits in every process.
        defaults = {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
        if sys.platform == "darwin":
            defaults["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
        return {**defaults, **thread_environment(self._place.threads)}

    def _cannot_start(self, reason: str, log: Path) -> SmltError:
        module = reason.removeprefix("cannot import ").partition(":")[0]
        hint = f"pip install 'smlt[{module}]'" if module in EXTRAS else f"see {log}"
        return PluginError(f"functions cannot start here: {reason}", hint)
