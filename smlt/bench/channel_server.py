"""A reducing store as a job finds one elsewhere: `smlt serve-channel`, reached over TCP, with a token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from smlt.backends.function_process import die_with_parent
from smlt.bench.redis_server import HOST
from smlt.core.errors import ChannelError

TAIL = 2000


@dataclass(frozen=True)
class ChannelServer:
    """One that listens: its address, and the file that holds its token."""

    url: str
    token_file: Path


@contextmanager
def channel_server(folder: Path, memory_mib: int) -> Iterator[ChannelServer]:
    """A store that is gone afterwards, and with its parent (on Linux); Ctrl-C at a terminal is not for it.

    Args:
        folder: for its token and what it prints; nobody else's.
        memory_mib: most that it may use.

    Raises:
        ChannelError: it does not start.
    """
    token_file, log = folder / "channel_token", folder / "serve_channel.txt"
    token_file.touch(0o600)
    token_file.write_text(os.urandom(32).hex(), encoding="ascii")
    options = ["--listen", f"{HOST}:0", "--token-file", str(token_file), "--memory", f"{memory_mib}MiB"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "smlt", "serve-channel", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
    assert process.stdout is not None
    try:
        said, _, url = process.stdout.readline().strip().rpartition(" ")
        if said != "listening on":
            tail = log.read_text(encoding="utf-8", errors="replace")[-TAIL:].strip()
            raise ChannelError(f"smlt serve-channel does not start: {tail}", "try it by hand")
        yield ChannelServer(url, token_file)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
