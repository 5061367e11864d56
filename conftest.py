"""For all tests, wherever pytest is started from."""

from __future__ import annotations

from smlt.backends.local.backend import cores


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means: one process more than there are cores, since tests wait as often as they work."""
    return cores() + 1
