"""What differs between the clouds that Lithops speaks to: its configuration, deploying, and what its errors mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smlt.core.errors import CloudError


class CloudFunctions(ABC):
    """Functions of one provider; lives in the process that Lithops has for itself (`cloud_host`).

    Args:
        settings: what the backend wants, as plain data without secrets.
        folder: private, for files.

    Attributes:
        refused: what the provider said of a call that it did not take, by Lithops' number of the job.
    """

    def __init__(self, settings: Mapping[str, Any], folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.refused: dict[str, Exception] = {}

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Lithops' configuration. All of it travels with every call: no key may be in it."""

    @abstractmethod
    def prepare(self, executor: Any) -> None:
        """Make ready what all functions share, once the executor is there."""

    @abstractmethod
    def deploy(self, executor: Any, memory_mib: int) -> None:
        """Make ready functions of this size; doing it again is no error and costs nothing."""

    @abstractmethod
    def explain(self, error: BaseException) -> CloudError:
        """What an error of the provider or of Lithops means, and how to mend it. No secret may be in it."""

    @abstractmethod
    def passes(self, error: BaseException) -> bool:
        """Whether the same call may well be taken later: the provider was busy, and nothing is wrong."""
