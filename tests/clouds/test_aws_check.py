"""`smlt check --backend aws` finds what is wrong with an account before a run does, and says how to mend it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from smlt.backends.aws.backend import AwsBackend
from smlt.backends.aws.options import AwsOptions
from smlt.cli.main import main
from smlt.core.backend import CheckResult
from tests.clouds.settings import BUCKET, options
from tests.emulators.aws import REGION, ROLE, Aws
from tests.emulators.refusing import Answer, Asked, Refusing, refusing

pytestmark = pytest.mark.clouds


def trusting(service: str) -> str:
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": service}}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@dataclass
class Account:
    """One in which all is well, until a test says otherwise."""

    proxy: Refusing
    backend: dict[str, Any]
    patched: pytest.MonkeyPatch

    def checks(self, **changes: Any) -> dict[str, CheckResult]:
        backend = AwsBackend("aws", AwsOptions.model_validate({**self.backend, **changes}))
        return {result.name: result for result in backend.check()}

    def refuse(self, status: int, code: str, asked: Callable[[Asked], bool]) -> None:
        self.proxy.rule = lambda request: Answer(status, code) if asked(request) else None


@pytest.fixture
def account(aws: Aws, monkeypatch) -> Iterator[Account]:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    iam = aws.client("iam")
    for name, service in (("smlt", "lambda.amazonaws.com"), ("stranger", "ec2.amazonaws.com")):
        if name not in {role["RoleName"] for role in iam.list_roles()["Roles"]}:
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusting(service))
    with refusing(aws.url, lambda _: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield Account(proxy, {**options(aws), "endpoint": proxy.url}, monkeypatch)


def test_where_all_is_well_nothing_fails(account: Account):
    found = account.checks()
    assert {result.status for result in found.values()} == {"pass", "skipped"}
    assert [name for name, result in found.items() if result.status == "skipped"] == ["redis"]
    assert BUCKET in found["bucket"].detail


def test_nothing_is_left(account: Account, aws: Aws):
    account.checks()
    assert aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="smlt/check").get("Contents", []) == []


def no_region(account: Account) -> dict[str, Any]:
    account.patched.delenv("AWS_REGION")
    return {"region": None}


def no_keys(account: Account) -> dict[str, Any]:
    account.patched.delenv("AWS_ACCESS_KEY_ID")
    account.patched.delenv("AWS_SECRET_ACCESS_KEY")
    account.patched.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    return {}


def wrong_key(account: Account) -> dict[str, Any]:
    account.refuse(403, "InvalidClientTokenId", lambda asked: b"GetCallerIdentity" in asked.body)
    return {}


def expired(account: Account) -> dict[str, Any]:
    account.refuse(403, "ExpiredToken", lambda asked: b"GetCallerIdentity" in asked.body)
    return {}


def nobody_there(account: Account) -> dict[str, Any]:
    return {"endpoint": "http://127.0.0.1:1"}


def no_bucket_named(account: Account) -> dict[str, Any]:
    return {"bucket": None}


def no_bucket(account: Account) -> dict[str, Any]:
    return {"bucket": "no-such-bucket"}


def anothers_bucket(account: Account) -> dict[str, Any]:
    account.refuse(403, "Forbidden", lambda asked: asked.method == "HEAD" and asked.path == f"/{BUCKET}")
    return {}


def read_only(account: Account) -> dict[str, Any]:
    account.refuse(403, "AccessDenied", lambda asked: asked.method == "PUT" and "/check/" in asked.path)
    return {}


def no_role_named(account: Account) -> dict[str, Any]:
    return {"role": None}


def no_role(account: Account) -> dict[str, Any]:
    return {"role": f"{ROLE}-of-nobody"}


def another_services_role(account: Account) -> dict[str, Any]:
    return {"role": ROLE.replace("smlt", "stranger")}


def no_lambda(account: Account) -> dict[str, Any]:
    account.refuse(403, "AccessDeniedException", lambda asked: asked.path.startswith("/2015-03-31/functions"))
    return {}


def redis_is_gone(account: Account) -> dict[str, Any]:
    return {"redis_url": "redis://127.0.0.1:1"}


def old_python(account: Account) -> dict[str, Any]:
    account.patched.setattr("smlt.backends.aws.check.PYTHONS", ((3, 97), (3, 99)))
    return {}


def stale_prices(account: Account) -> dict[str, Any]:
    account.patched.setattr("smlt.backends.aws.check.FRESH_DAYS", -1)
    return {}


def no_sdk(account: Account) -> dict[str, Any]:
    account.patched.setattr("smlt.backends.aws.check.importlib.util.find_spec", lambda name: None)
    return {}


@pytest.mark.parametrize(
    ("fault", "check", "said", "mend"),
    [
        (no_region, "region", "which region", "AWS_REGION"),
        (no_keys, "credentials", "no AWS credentials", "AWS_ACCESS_KEY_ID"),
        (wrong_key, "credentials", "does not know", "AWS_ACCESS_KEY_ID"),
        (expired, "credentials", "expired", "login"),
        (nobody_there, "credentials", "cannot be reached", "region"),
        (no_bucket_named, "bucket", "which bucket", "backend.bucket"),
        (no_bucket, "bucket", "no-such-bucket", "aws s3 mb s3://no-such-bucket"),
        (anothers_bucket, "bucket", "not yours", "backend.bucket"),
        (read_only, "store", "refuses access", "credentials"),
        (no_role_named, "role", "no [backend].role", "smlt cloud setup aws"),
        (no_role, "role", "no role", "smlt cloud setup aws"),
        (another_services_role, "role", "does not trust", "smlt cloud setup aws"),
        (no_lambda, "functions", "ListFunctions", "allow"),
        (redis_is_gone, "redis", "cannot reach", "server"),
        (old_python, "python", "Lambda has no Python", "3.97 to 3.99"),
        (stale_prices, "prices", "days old", "smlt prices refresh aws"),
        (no_sdk, "sdk", "boto3", "pip install 'smlt[aws]'"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_planted_fault_is_found(account: Account, fault, check: str, said: str, mend: str):
    found = account.checks(**fault(account))[check]
    assert found.status == "fail", found
    assert said in found.detail
    assert mend in found.mend


def test_missing_permissions_are_named(account: Account, aws: Aws):
    def rule(asked: Asked) -> Answer | None:
        return Answer(200, "ok") if b"GetCallerIdentity" in asked.body else None

    identity = b"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>%s</Arn><Account>000000000000</Account>"
    identity += b"<UserId>AIDA</UserId></GetCallerIdentityResult></GetCallerIdentityResponse>"
    iam = aws.client("iam")
    iam.create_user(UserName="learner")
    statement = {"Effect": "Allow", "Action": ["s3:*", "lambda:*"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="learner", PolicyName="some", PolicyDocument=policy)
    account.patched.setattr(Answer, "body", lambda _: identity % b"arn:aws:iam::000000000000:user/learner")
    account.proxy.rule = rule
    found = account.checks()["permissions"]
    assert (found.status, found.detail) == ("fail", "missing: iam:PassRole")
    assert found.mend == "smlt cloud setup aws"


def test_the_command_says_it_too(account: Account, capsys):
    assert main(["check", "--backend", "aws", "-o", "json", "--set", f"backend.region={REGION}"]) == 4
    checks = {each["name"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert (checks["credentials"]["status"], checks["bucket"]["status"]) == ("pass", "fail")
    assert checks["store"]["status"] == "skipped"
