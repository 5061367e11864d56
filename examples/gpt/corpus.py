"""The text: the Python standard library's own sources, as bytes."""

import sysconfig
from pathlib import Path

import numpy as np

HELD_OUT = (
    "argparse.py",
    "asyncio/queues.py",
    "bisect.py",
    "csv.py",
    "email/message.py",
    "fractions.py",
    "heapq.py",
    "http/cookies.py",
    "json/decoder.py",
    "logging/handlers.py",
    "multiprocessing/pool.py",
    "shlex.py",
    "statistics.py",
    "textwrap.py",
    "urllib/robotparser.py",
    "xml/dom/minidom.py",
)
"""Files that are validated on and never trained on; all of them exist in Python 3.11 to 3.14."""

SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"})
"""Other people's packages, tests, and two folders of generated tables."""


def read_corpus() -> tuple[np.ndarray, np.ndarray]:
    """Training and validation bytes (uint8 vectors), files in order of their names, a zero byte after each.

    The same in every run of one installation of Python; FileNotFoundError if it came without sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    texts = {
        name: path.read_bytes() + b"\0"
        for path in root.rglob("*.py")
        if SKIPPED_FOLDERS.isdisjoint((name := path.relative_to(root)).parts)
    }
    names = sorted(texts, key=lambda name: name.as_posix())
    held_out = {name for name in names if name.as_posix() in HELD_OUT}
    train = b"".join(texts[name] for name in names if name not in held_out)
    valid = b"".join(texts[name] for name in names if name in held_out)
    if not train or not valid:
        raise FileNotFoundError(f"{root} lacks the standard library's sources")
    return np.frombuffer(train, np.uint8), np.frombuffer(valid, np.uint8)
