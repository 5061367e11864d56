"""AWS on this machine: ministack, an independent S3, Lambda, IAM and STS that tests start for themselves.

What it does not prove: memory, CPU and payload limits (there are none), the death of a whole sandbox (a killed or timed
out handler leaves its function alive), signatures and permissions (any key may do everything), and real latencies.
Functions run in the interpreter that ministack has, so they see what is installed beside it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

from smlt.bench.redis_server import HOST, free_port

REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
ROLE = "arn:aws:iam::000000000000:role/smlt"
SERVICES = ("s3", "lambda", "iam", "sts", "logs", "ecr")
START_S = 60.0


@dataclass(frozen=True)
class Aws:
    """A running one.

    Attributes:
        url: of every service.
        log: what it printed, its functions included.
    """

    url: str
    log: Path

    def client(self, service: str) -> Any:
        """A boto3 client of a service."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a user of it would set."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.url, "AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"}


@contextmanager
def ministack(folder: Path, *services: str) -> Iterator[Aws]:
    """A server with these services, empty; it and its functions are gone afterwards.

    Args:
        folder: for its home and its log.
        services: as ministack calls them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    aws = Aws(f"http://{HOST}:{port}", folder / "ministack.log")
    # Functions inherit the server's environment: it has nothing of ours in it.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "SERVICES": ",".join(services),
    }
    with aws.log.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "ministack"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_up(aws, server)
        yield aws
    finally:
        _end_group(server)


def _wait_until_up(aws: Aws, server: subprocess.Popen[bytes]) -> None:
    last = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < last:
        try:
            urllib.request.urlopen(f"{aws.url}/_ministack/health", timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"ministack did not start: {aws.log.read_text(errors='replace')[-2000:]}")


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """The server, and its functions, which are of its process group."""
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
