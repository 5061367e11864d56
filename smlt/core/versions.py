"""What a run is made with: versions of Python, the system and the packages that its figures depend on."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = (
    "smlt", "numpy", "torch", "tensorflow", "keras", "jax", "safetensors", "msgpack", "obstore", "optuna", "lithops",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions by name, of packages that are installed; nothing is imported."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
