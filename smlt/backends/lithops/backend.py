"""The Lithops backend: the local backend's stores and channel, with functions that Lithops starts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import Field

from smlt.backends.lithops_launcher import LithopsLauncher, clean_private_folders
from smlt.backends.local.backend import LocalBackend, LocalOptions
from smlt.core.backend import CheckResult, Launcher, RunPlace

SERIES = "3.8."
"""The releases whose ways (facts that no documentation states) this backend was built on."""


class LithopsOptions(LocalOptions):
    """`[backend]` of the Lithops backend."""

    compute: Literal["localhost"] = Field("localhost", description="where Lithops runs functions")


class LithopsBackend(LocalBackend):
    """This machine through Lithops: slower to start (a Python a function), and the very path that a cloud takes."""

    Options = LithopsOptions
    catalog_package = "smlt.backends.lithops"

    def launcher(self, place: RunPlace) -> Launcher:
        """One FunctionExecutor for the run."""
        return LithopsLauncher(place, self.worker, max_workers=self.options.max_workers)

    def check(self) -> Sequence[CheckResult]:
        """What the local backend checks, and Lithops' version."""
        return [check_lithops(), *super().check()]

    def clean(self, place: RunPlace) -> Sequence[str]:
        """Remove what the run left in shared memory, and Lithops' files should everything have been killed at once."""
        return [*clean_private_folders(place), *super().clean(place)]


def check_lithops() -> CheckResult:
    """Whether Lithops is of the series that is used here."""
    try:
        found = version("lithops")
    except PackageNotFoundError:
        found = "none"
    if found.startswith(SERIES):
        return CheckResult("lithops", "pass", found)
    return CheckResult("lithops", "fail", f"{found} is installed", f"pip install 'lithops=={SERIES}*'")
