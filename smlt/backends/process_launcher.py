"""The local launcher: a function is a plain process, forked from a server that has the framework imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from smlt.backends.file_store import UNLISTED
from smlt.backends.function_process import FRAMEWORK_DEFAULTS
from smlt.backends.link import connected_to
from smlt.backends.served_launcher import ServedLauncher, thread_environment
from smlt.core.errors import PluginError, SmltError

EXTRAS = ("torch", "tensorflow", "jax")


class ProcessLauncher(ServedLauncher):
    """Functions are forks of `fork_server.py`, which imports `place.preload` first."""

    server = "smlt.backends.fork_server"

    def _server_arguments(self) -> Sequence[str]:
        return str(self._sockets), *self._place.preload

    def _do_adopt(self, labels: Sequence[str]) -> Mapping[str, str]:
        """The server of a process that was killed is there until the last of its functions has left.

        Of several processes that were killed one after another, it may be that of an earlier one, with none of these.
        """
        with self._lock:
            for path in sorted(self._sockets.glob("*")):
                if path.name == str(self._server.pid):
                    continue
                sock = connected_to(path)
                if sock is None:
                    path.unlink(missing_ok=True)
                elif self._take_over(sock) and any(label in self._states for label in labels):
                    return {label: label for label in labels}
        return {}

    def _server_released(self) -> None:
        """One that was killed has not removed its socket."""
        (self._sockets / str(self._server.pid)).unlink(missing_ok=True)

    @property
    def _sockets(self) -> Path:
        """Where a server waits for another launcher, should the process of its own be killed."""
        return self._place.runs_dir.absolute() / self._place.run / UNLISTED / "launchers"

    def _server_environment(self) -> Mapping[str, str]:
        defaults = dict(FRAMEWORK_DEFAULTS)
        if sys.platform == "darwin":
            defaults["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
        return {**defaults, **thread_environment(self._place.threads)}

    def _cannot_start(self, reason: str, hint: str, log: Path) -> SmltError:
        module = reason.removeprefix("cannot import ").partition(":")[0]
        hint = hint or (f"pip install 'smlt[{module}]'" if module in EXTRAS else f"see {log}")
        return PluginError(f"functions cannot start here: {reason}", hint)
