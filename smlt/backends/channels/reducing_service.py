"""A reducing store of one run, beside its ranks on this machine: where it is, and its process."""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import sys
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
    process = _start(folder, log)
    try:
        _replace(folder / "address", _address_of(process, log))
        with ReducingChannel(spec_for(place), 0, 0, 0) as attendant:
            attendant.store_stats()  # connected: workers may take long before they are
            yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
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
