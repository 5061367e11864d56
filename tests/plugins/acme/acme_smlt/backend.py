"""A backend whose functions are plain subprocesses. Store and channel are smlt's own, by their registered names."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

from pydantic import Field

from smlt.core import wire
from smlt.core.backend import Backend, BackendOptions, FunctionState, Launcher, Limits, Phase
from smlt.core.catalog import Catalog, FunctionPrice
from smlt.core.errors import JobFailed
from smlt.core.storage import ChannelSpec, StoreSpec


class AcmeLauncher(Launcher):
    """One `python -m acme_smlt.function` a rank."""

    def __init__(self, place, entry="smlt.core.function:work"):
        self._folder = place.runs_dir.absolute() / place.run / "acme"
        self._entry = entry
        self._processes = {}
        self._closed = False

    def _do_launch(self, spec):
        if self._closed:
            raise JobFailed("the launcher is closed")
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{spec.label}.spec"
        path.write_bytes(wire.pack(spec))
        with path.with_suffix(".txt").open("ab") as log:
            self._processes[spec.label] = subprocess.Popen(
                [sys.executable, "-m", "acme_smlt.function", str(path), self._entry],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return spec.label

    def _do_poll(self, handles):
        return {handle: self._state(self._processes[handle].poll()) for handle in handles}

    def _state(self, code):
        if code is None:
            return FunctionState(Phase.RUNNING)
        if code == 0:
            return FunctionState(Phase.ENDED)
        return FunctionState(Phase.LOST, f"exit code {code}" if code > 0 else f"killed by signal {-code}")

    def _do_stop(self, handle):
        process = self._processes[handle]
        with suppress(ProcessLookupError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _do_logs(self, handle):
        return (self._folder / f"{handle}.txt").read_text(errors="replace")

    def _do_close(self):
        self._closed = True
        for handle in self._processes:
            self.stop(handle)


class AcmeOptions(BackendOptions):
    """`[backend]` of this backend."""

    max_workers: int = Field(8, ge=1, description="most processes at once")


class AcmeBackend(Backend[AcmeOptions]):
    """Subprocesses of this machine."""

    Options = AcmeOptions

    @property
    def limits(self):
        return Limits(
            max_workers=self.options.max_workers,
            memory_choices_mib=(2048,),
            function_time_limit_s=None,
            vcpus_at_hand=os.cpu_count(),
            beat_s=0.1,
            orphan_grace_s=8.0,
            start_deadline_s=60.0,
        )

    @property
    def catalog(self):
        return Catalog(
            provider="acme",
            source="made up",
            as_of="2026-01-01",
            function=FunctionPrice(usd_per_gib_s=0.0, usd_per_request=0.0),
        )

    def launcher(self, place):
        return AcmeLauncher(place)

    def object_store(self, place):
        return StoreSpec("file", (place.runs_dir.absolute() / place.run).as_uri())

    def channels(self, place):
        folder = place.runs_dir.absolute() / place.run / "acme" / "channel"
        return {"shared_memory": ChannelSpec("shared_memory", folder.as_uri())}
