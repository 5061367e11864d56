"""What runs in the place: `python -m acme_smlt.function SPEC MODULE:FUNCTION`."""

import importlib
import sys
from pathlib import Path

from smlt.core import wire
from smlt.core.backend import RankSpec

if __name__ == "__main__":
    spec = wire.unpack(Path(sys.argv[1]).read_bytes(), RankSpec)
    module, _, function = sys.argv[2].partition(":")
    getattr(importlib.import_module(module), function)(spec)
