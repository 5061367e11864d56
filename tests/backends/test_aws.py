"""The backend aws as far as it goes without AWS's own package: options, places, and what AWS's errors mean."""

import pytest
from pydantic import ValidationError

from smlt.backends.aws import backend as module
from smlt.backends.aws.backend import AwsBackend
from smlt.backends.aws.mistakes import explained, is_passing
from smlt.backends.aws.options import AwsOptions
from smlt.core.backend import RunPlace
from smlt.core.errors import CloudError, ConfigError, PluginError
from smlt.core.storage import StoreSpec

ROLE = "arn:aws:iam::123456789012:role/smlt"
SETTINGS = {"region": "eu-west-1", "bucket": "b", "role": ROLE}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place(tmp_path) -> RunPlace:
    return RunPlace("digits", tmp_path, ("torch",), requirements=("scikit-learn>=1.6",))


def aws(**options) -> AwsBackend:
    return AwsBackend("aws", AwsOptions.model_validate(options))


@pytest.mark.parametrize("limit", ["901s", "5s", "30.5s"])
def test_a_time_limit_that_lambda_does_not_have(limit: str):
    with pytest.raises(ValidationError, match="900 at most"):
        aws(function_time_limit=limit)


def test_a_rank_has_what_lambda_and_lithops_leave():
    assert aws(function_time_limit="30s").limits.function_time_limit_s == 24


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(ValidationError) as caught:
        aws(redis_url="redis://user:sesame@host")
    assert "sesame" not in str(caught.value)


def test_channels_are_planned_before_there_is_a_bucket(place):
    assert list(aws().channels(place)) == ["object", "redis"]


def test_redis_is_preferred_where_it_is_named(place):
    found = aws(bucket="b", region="eu-west-1", redis_url="redis://host").channels(place)
    assert list(found) == ["redis", "object"]
    assert found["object"].url == "s3://b/smlt/digits/channel"


@pytest.fixture
def with_sdk(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: object())


def test_a_run_is_a_prefix_of_the_bucket(place, with_sdk, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    options = {"region": "us-west-2", "endpoint": "http://127.0.0.1:4566"}
    assert aws(bucket="b", role=ROLE).object_store(place) == StoreSpec("s3", "s3://b/smlt/digits", options)
    there = {"bucket": "b", "role": ROLE, "region": "eu-west-1", "endpoint": "https://s3.example.com"}
    here = aws(prefix="", **there).object_store(place)
    assert here == StoreSpec("s3", "s3://b/digits", {"region": "eu-west-1", "endpoint": "https://s3.example.com"})


def test_what_must_be_said(place, with_sdk):
    with pytest.raises(ConfigError, match=r"\[backend\]\.bucket"):
        aws(region="eu-west-1", role=ROLE).object_store(place)
    with pytest.raises(ConfigError, match=r"\[backend\]\.region") as caught:
        aws(bucket="b", role=ROLE).object_store(place)
    assert "AWS_REGION" in caught.value.hint
    with pytest.raises(ConfigError, match=r"\[backend\]\.role"):
        aws(bucket="b", region="eu-west-1").object_store(place)


def test_the_missing_extra_is_named_before_a_run_is_made(place, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(PluginError) as caught:
        aws(bucket="b", region="eu-west-1").object_store(place)
    assert caught.value.hint == "pip install 'smlt[aws]'"


def test_functions_are_given_what_the_task_requires(place):
    settings = aws(bucket="b", region="eu-west-1", role=ROLE, preinstalled=["torch"]).settings(place)
    requirements = settings["requirements"]
    assert "scikit-learn>=1.6" in requirements
    assert not [line for line in requirements if line.startswith(("torch", "lithops", "typer", "optuna"))]
    assert {line.partition("==")[0] for line in requirements} >= {"numpy", "obstore", "tblib", "pydantic"}
    assert settings["architecture"] == "x86_64"


def test_arm_is_a_kind_of_functions(place):
    settings = aws(bucket="b", region="eu-west-1", role=ROLE, functions="lambda_arm64").settings(place)
    assert settings["architecture"] == "arm64"


class ClientError(Exception):
    """As botocore's: a word for what is wrong, and the request."""

    def __init__(self, code: str, operation_name: str, message: str = "") -> None:
        super().__init__(message)
        self.response, self.operation_name = {"Error": {"Code": code}}, operation_name


class NoCredentialsError(Exception):
    """Of botocore's name."""


@pytest.mark.parametrize(
    ("error", "said", "mend"),
    [
        (ClientError("AccessDenied", "PutObject"), "denies PutObject", "smlt check"),
        (ClientError("InvalidAccessKeyId", "PutObject"), "does not know the credentials", "AWS_ACCESS_KEY_ID"),
        (ClientError("ExpiredToken", "PutObject"), "expired", "login"),
        (ClientError("NoSuchBucket", "PutObject"), "no bucket 'b' in eu-west-1", "aws s3 mb s3://b"),
        (ClientError("TooManyRequestsException", "Invoke"), "no room for Invoke", "quota"),
        (
            ClientError("InvalidParameterValueException", "CreateFunction", "The role defined cannot be assumed"),
            f"the role {ROLE}",
            "trust",
        ),
        (NoCredentialsError("Unable to locate credentials"), "no AWS credentials", "AWS_ACCESS_KEY_ID"),
        (ModuleNotFoundError("No module named 'boto3'"), "boto3", "smlt[aws]"),
        (RuntimeError("a bolt from the blue"), "RuntimeError: a bolt from the blue", ""),
        (ConfigError("known already", "and how to mend it"), "known already", "and how to mend it"),
    ],
    ids=lambda value: getattr(value, "args", [""])[0] if isinstance(value, Exception) else "",
)
def test_what_errors_mean(error: Exception, said: str, mend: str):
    found = explained(error, SETTINGS)
    assert isinstance(found, CloudError)
    assert said in found.message
    assert mend in found.hint


def test_what_passes():
    assert is_passing(ClientError("TooManyRequestsException", "Invoke"))
    assert not is_passing(ClientError("AccessDenied", "Invoke"))
    assert not is_passing(RuntimeError())
