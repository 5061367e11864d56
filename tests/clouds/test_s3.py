"""S3 keeps the contract of an object store, and says what is wrong with a place in it."""

import functools
import uuid

import pytest

from smlt.backends.aws.s3 import S3ObjectStore, spec_of
from smlt.core.errors import ConfigError, NotFound, StorageError
from smlt.core.storage import StoreSpec
from smlt.testing.object_store import ObjectStoreContract, OpenStore
from tests.emulators.aws import REGION, Aws

pytestmark = pytest.mark.clouds
BUCKET = "smlt-stores"


@pytest.fixture
def bucket(aws_user: Aws) -> Aws:
    aws_user.client("s3").create_bucket(Bucket=BUCKET)
    return aws_user


class TestS3(ObjectStoreContract):
    @pytest.fixture
    def open_store(self, bucket: Aws) -> OpenStore:
        return functools.partial(S3ObjectStore, spec_of(BUCKET, f"a run/{uuid.uuid4()}", REGION, bucket.url))


def test_keys_are_below_the_prefix(bucket: Aws) -> None:
    S3ObjectStore(spec_of(BUCKET, "smlt/digits", REGION, bucket.url)).put("code.zip", b"1")
    found = bucket.client("s3").get_object(Bucket=BUCKET, Key="smlt/digits/code.zip")
    assert found["Body"].read() == b"1"


def test_more_keys_than_one_answer_holds(bucket: Aws) -> None:
    store = S3ObjectStore(spec_of(BUCKET, "many", REGION, bucket.url))
    for number in range(1005):
        store.put(f"{number:06d}", b"")
    assert [info.key for info in store.list()] == [f"{number:06d}" for number in range(1005)]


def test_a_bucket_that_is_not_there_is_named(bucket: Aws) -> None:
    store = S3ObjectStore(spec_of("no-such-bucket", "x", REGION, bucket.url))
    with pytest.raises(StorageError, match="no-such-bucket"):
        store.put("object", b"1")
    with pytest.raises(NotFound, match="no-such-bucket"):
        store.get("object")


@pytest.mark.parametrize("url", ["bucket/x", "file:///x", "s3:///x"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no place in S3"):
        S3ObjectStore(StoreSpec("s3", url, {"region": REGION}))
