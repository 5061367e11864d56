"""A reducing store of one run, beside its ranks on this machine: where it is, and its process."""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smlt.backends.channels.reducing import NAMESPACE, ReducingChannel
from smlt.backends.channels.reducing_link import TOKEN_FILE
from smlt.backends.file_store import UNLISTED
from smlt.core.backend import RunPlace
from smlt.core.errors import ChannelError
from smlt.core.storage import ChannelSpec

SERVER = "smlt.backends.channels.reducing_server"
IDLE_S = 60.0
"""A store whose run is gone without a word stops so long after the last worker has left."""

MOST_PATH_BYTES = 100
START_S = 60.0
STOP_S = 10.0
PAUSE_S = 0.05
"""Before another one is started: a machine on which it dies at once shall have time for other things."""

LOOK_S = 0.05


def spec_for(place: RunPlace) -> ChannelSpec:
    """The run's own store: its address and its token stand in files that only this user can read."""
    folder = folder_for(place)
    return ChannelSpec("reducing", (folder / "address").as_uri(), {TOKEN_FILE: str(folder / "token")})


def spec_at(place: RunPlace, url: str, token_file: Path | None) -> ChannelSpec:
    """A store that runs already, perhaps for several runs at once."""
    run = place.runs_dir.absolute() / place.run
    mark = hashlib.blake2b(os.fsencode(run), digest_size=6).hexdigest()
    token = {TOKEN_FILE: str(token_file.absolute())} if token_file else {}
    return ChannelSpec("reducing", url, {NAMESPACE: f"{place.run}-{mark}", **token})


def folder_for(place: RunPlace) -> Path:
    """Where the files of the run's own store are."""
    return place.runs_dir.absolute() / place.run / UNLISTED / "reducing"


@contextmanager
def serving(place: RunPlace) -> Iterator[None]:
    """Run a store while a run is driven. It outlives a driver that is killed, as the workers do for a while.

    Raises:
        ChannelError: it does not start.
    """
    folder = folder_for(place)
    log = place.runs_dir.absolute() / place.run / "logs" / "reducing_server.txt"
    for made in (folder, log.parent):
        made.mkdir(parents=True, exist_ok=True)
    _make_token(folder / "token")
    store = _Store(spec_for(place), folder, log)
    try:
        yield
    finally:
        store.close()


class _Store:
    """A store that is started anew when it dies: whoever loses it asks for another round, and finds the next one.

    Args:
        spec: where its address and its token are.
        folder: of these.
        log: what its processes say.

    Raises:
        ChannelError: it does not start.
    """

    def __init__(self, spec: ChannelSpec, folder: Path, log: Path) -> None:
        self._spec, self._folder, self._log = spec, folder, log
        self._closing = threading.Event()
        self._process, self._attendant = self._started()
        self._thread = threading.Thread(target=self._watch, name="smlt-reducing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop it."""
        self._closing.set()
        last = time.monotonic() + STOP_S
        while self._thread.is_alive():
            end = self._process.terminate if time.monotonic() < last else self._process.kill
            end()
            self._thread.join(LOOK_S)
        self._attendant.close()

    def _watch(self) -> None:
        while True:
            self._process.wait()
            _reap(self._process)
            if self._closing.wait(PAUSE_S):
                return
            self._attendant.close()
            try:
                self._process, self._attendant = self._started()
            except (ChannelError, OSError) as error:
                if not self._closing.is_set():
                    print(f"smlt: the reducing store has died, and another one fails: {error}", file=sys.stderr)
                return

    def _started(self) -> tuple[subprocess.Popen[str], ReducingChannel]:
        """Its process, and a connection so that it is never idle: workers may take long before they come."""
        process = self._process = _start(self._folder, self._log)
        try:
            _replace(self._folder / "address", _address_of(process, self._log))
            attendant = ReducingChannel(self._spec, 0, 0, 0)
            attendant.store_stats()
        except ChannelError:
            process.kill()
            _reap(process)
            raise
        return process, attendant


def _reap(process: subprocess.Popen[str]) -> None:
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _start(folder: Path, log: Path) -> subprocess.Popen[str]:
    """A Unix socket takes two thirds of the processor time of TCP; but the system has a limit on its path."""
    path = folder / f"socket-{os.getpid()}-{os.urandom(4).hex()}"
    listen = f"unix:{path}" if len(os.fsencode(path)) <= MOST_PATH_BYTES else "127.0.0.1:0"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    arguments = [listen, str(folder / "token"), str(IDLE_S), str(memory)]
    with log.open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", SERVER, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for the engine: workers may still need the store to leave
        )


def _address_of(process: subprocess.Popen[str], log: Path) -> str:
    """What the store says that its address is."""
    assert process.stdout is not None
    poller = select.poll()
    poller.register(process.stdout, select.POLLIN)
    line = process.stdout.readline() if poller.poll(START_S * 1e3) else ""
    if not line:
        raise ChannelError("the reducing store does not start", f"see {log}")
    return line.removeprefix("listening on ").strip()


def _make_token(path: Path) -> None:
    """Unless there is one: a store that was started before may still serve workers that know it."""
    with suppress(FileExistsError):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as token:
            token.write(os.urandom(32).hex())


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
