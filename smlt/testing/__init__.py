"""The suites that prove an implementation of smlt's interfaces, published for third parties.

Subclass one in a test module, give its fixtures, inherit the tests. Needs pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from smlt.testing.backend import BackendContract, TimeLimitContract
    from smlt.testing.channel import ChannelContract, ServedChannelContract, StrangerContract
    from smlt.testing.object_store import LocalObjectStoreContract, ObjectStoreContract
    from smlt.testing.planner import PlannerContract

__all__ = [
    "BackendContract",
    "ChannelContract",
    "LocalObjectStoreContract",
    "ObjectStoreContract",
    "PlannerContract",
    "ServedChannelContract",
    "StrangerContract",
    "TimeLimitContract",
]

_HOMES = {
    "BackendContract": "backend",
    "ChannelContract": "channel",
    "LocalObjectStoreContract": "object_store",
    "ObjectStoreContract": "object_store",
    "PlannerContract": "planner",
    "ServedChannelContract": "channel",
    "StrangerContract": "channel",
    "TimeLimitContract": "backend",
}

# Before they are imported, so that a failing assertion in an inherited test says what the values were.
for _suite in sorted(set(_HOMES.values())):
    pytest.register_assert_rewrite(f"{__name__}.{_suite}")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'smlt.testing' has no attribute {name!r}")
