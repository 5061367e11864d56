"""Azure Blob Storage on this machine: Azurite, Microsoft's own emulator, from npm.

What it does not prove: identities and role assignments (one known key may do everything), and real latencies.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

from smlt.bench.redis_server import HOST, free_port

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, in its documentation."""

SERVER = Path(__file__).parents[2] / ".clouds" / "node_modules" / ".bin" / "azurite-blob"
START_S = 60.0


@dataclass(frozen=True)
class Azure:
    """A running one.

    Attributes:
        url: of the account's blobs.
    """

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a user of it would set."""
        return {"AZURE_STORAGE_ACCOUNT_KEY": KEY}


@contextmanager
def azurite(folder: Path) -> Iterator[Azure]:
    """A server, empty; it is gone afterwards.

    Args:
        folder: for its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "azurite.log"
    command = [str(SERVER), "--blobHost", HOST, "--blobPort", str(port), "--silent", "--disableTelemetry"]
    command += ["--skipApiVersionCheck", "--inMemoryPersistence"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
    try:
        _wait_until_up(f"http://{HOST}:{port}/{ACCOUNT}", server, log)
        yield Azure(f"http://{HOST}:{port}/{ACCOUNT}")
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_until_up(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    last = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < last:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except HTTPError:
            return  # it wants a key, so it is there
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"Azurite did not start: {log.read_text(errors='replace')[-2000:]}")


def create_container(azure: Azure, name: str) -> None:
    """A container, unless it is there."""
    import base64
    import hashlib
    import hmac
    from email.utils import formatdate

    date, path = formatdate(usegmt=True), f"/{ACCOUNT}/{name}"
    signed = (
        f"PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-08-06\n/{ACCOUNT}{path}\nrestype:container"
    )
    mark = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {ACCOUNT}:{mark}"}
    request = urllib.request.Request(f"{azure.url}/{name}?restype=container", headers=headers, method="PUT")
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except HTTPError as error:
        if error.code != 409:
            raise
