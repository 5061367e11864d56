"""`python -m tests.emulators`: the emulated clouds, until Ctrl-C, and what to type in another terminal."""

from __future__ import annotations

import signal
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.emulators.aws import ROLE, SERVICES, ministack

BUCKET = "smlt-runs"


def main() -> None:
    """Serve."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder, ministack(Path(folder), *SERVICES) as aws:
        aws.client("s3").create_bucket(Bucket=BUCKET)
        settings = {"bucket": BUCKET, "role": ROLE, "preinstalled": '["torch"]'}
        flags = " ".join(f"--set 'backend.{name}={value}'" for name, value in settings.items())
        print("\n".join(f"export {name}={value}" for name, value in aws.environment.items()))
        print(f"cd examples/digits && smlt train --backend aws --workers 2 --memory 2GiB --yes {flags}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
