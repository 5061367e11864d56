"""Azure Blob Storage keeps the contract of an object store."""

import functools
import uuid
from collections.abc import Iterator

import pytest

from smlt.backends.azure.blob import BlobObjectStore, spec_of
from smlt.core.errors import ConfigError, NotFound, StorageError
from smlt.core.plugins import load_registry
from smlt.core.storage import StoreSpec
from smlt.testing.object_store import ObjectStoreContract, OpenStore
from tests.emulators.azure import ACCOUNT, Azure, azurite, create_container

pytestmark = pytest.mark.clouds
CONTAINER = "smlt-stores"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Azure]:
    with azurite(tmp_path_factory.mktemp("azure")) as azure:
        create_container(azure, CONTAINER)
        yield azure


@pytest.fixture
def azure(server: Azure, monkeypatch) -> Azure:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


class TestBlob(ObjectStoreContract):
    @pytest.fixture
    def open_store(self, azure: Azure) -> OpenStore:
        spec = spec_of(ACCOUNT, CONTAINER, f"a run/{uuid.uuid4()}", azure.url)
        return functools.partial(BlobObjectStore, spec)


def test_the_registry_opens_it(azure: Azure) -> None:
    store = load_registry().open_store(spec_of(ACCOUNT, CONTAINER, "run", azure.url))
    store.put("object", b"1")
    assert store.get("object") == b"1"


def test_a_container_that_is_not_there_is_named(azure: Azure) -> None:
    store = BlobObjectStore(spec_of(ACCOUNT, "no-such-container", "x", azure.url))
    with pytest.raises(StorageError, match="no-such-container"):
        store.put("object", b"1")
    with pytest.raises(NotFound, match="no-such-container"):
        store.get("object")


@pytest.mark.parametrize("url", ["container/x", "s3://container/x", "az:///x"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no place in Blob Storage"):
        BlobObjectStore(StoreSpec("azure", url, {"account": ACCOUNT}))
