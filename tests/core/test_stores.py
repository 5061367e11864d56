"""The store double keeps the contract too, so that what is shown with it holds with a real one."""

from __future__ import annotations

import pytest

from smlt.testing.object_store import LocalObjectStoreContract, OpenStore
from tests.support.stores import DictStore


class TestDictStore(LocalObjectStoreContract):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        store = DictStore()
        return lambda: store
