"""A controller that is killed: `python -m tests.clouds.dying FOLDER BACKEND NAME STEP` trains digits to that step."""

import json
import os
import signal
import sys
from pathlib import Path

from smlt.core.plugins import load_registry
from smlt.core.storage import StoreSpec
from tests.clouds.runs import Accident, Runs

if __name__ == "__main__":
    folder, backend, name, step = sys.argv[1:]
    runs = Runs(Path(folder), load_registry(), json.loads(backend), StoreSpec("none", ""))
    runs.train(name, {}, Accident(int(step), lambda: os.kill(os.getpid(), signal.SIGKILL)))
