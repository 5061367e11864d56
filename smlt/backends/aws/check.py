"""`smlt check --backend aws`: what a run needs, tried one by one; nothing is launched, nothing is left."""

from __future__ import annotations

import importlib.util
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from smlt.backends.aws.access import starter_actions
from smlt.backends.aws.mistakes import code_of, explained
from smlt.core.backend import CheckResult, RunPlace
from smlt.core.errors import AlreadyExists, SmltError

if TYPE_CHECKING:
    from smlt.backends.aws.backend import AwsBackend

PYTHONS = ((3, 11), (3, 14))
"""Oldest and newest that Lambda has, of those that smlt runs on."""

FRESH_DAYS = 90
"""Prices may be so old."""


def _fail(name: str, detail: str, mend: str) -> CheckResult:
    return CheckResult(name, "fail", detail, mend)


def checks(backend: AwsBackend) -> Iterator[CheckResult]:
    """Each in turn; what cannot be tried because of another is skipped."""
    yield _python()
    yield _lithops()
    yield _prices(backend)
    yield _redis(backend)
    missing = next((name for name in ("boto3", "botocore") if importlib.util.find_spec(name) is None), "")
    if missing:
        yield _fail("sdk", f"{missing} is not installed", "pip install 'smlt[aws]'")
        return
    try:
        region = backend.region
    except SmltError as error:
        yield _fail("region", error.message, error.hint)
        return
    yield CheckResult("region", "pass", f"{region}{f', at {backend.endpoint}' if backend.endpoint else ''}")
    yield from _Account(backend, region).checks()


@dataclass
class _Account:
    """What is tried with credentials."""

    backend: AwsBackend
    region: str
    identity: dict[str, Any] = field(default_factory=dict)

    def checks(self) -> Iterator[CheckResult]:
        yield (found := self._tried("credentials", self._credentials))
        names = ("bucket", "store", "role", "permissions", "functions", "quota")
        if found.status != "pass":
            yield from (CheckResult(name, "skipped", "no credentials", found.mend) for name in names)
            return
        yield (found := self._tried("bucket", self._bucket))
        if found.status == "pass":
            yield self._tried("store", self._store)
        else:
            yield CheckResult("store", "skipped", "no bucket", found.mend)
        yield self._tried("role", self._role)
        yield self._tried("permissions", self._permissions)
        yield self._tried("functions", self._functions)
        yield self._tried("quota", self._quota)

    def _tried(self, name: str, attempt: Callable[[], CheckResult]) -> CheckResult:
        try:
            return attempt()
        except Exception as error:  # whatever boto3 raises
            options = self.backend.options
            settings = {"region": self.region, "bucket": options.bucket, "role": options.role}
            found = explained(error, settings)
            return _fail(name, found.message, found.hint or "is that service there?")

    def _client(self, service: str) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 2})
        made: Any = boto3.Session(region_name=self.region)  # the default one would remember other credentials
        return made.client(service, endpoint_url=self.backend.endpoint, config=config)

    def _credentials(self) -> CheckResult:
        self.identity = self._client("sts").get_caller_identity()
        return CheckResult("credentials", "pass", str(self.identity["Arn"]))

    def _bucket(self) -> CheckResult:
        bucket = self.backend.bucket
        try:
            answer = self._client("s3").head_bucket(Bucket=bucket)
        except Exception as error:
            if code_of(error) in ("301", "PermanentRedirect"):
                return _fail("bucket", f"{bucket} is in another region than {self.region}", "set AWS_REGION")
            if code_of(error) == "403":
                return _fail("bucket", f"{bucket} is not yours", "--set backend.bucket=ANOTHER-NAME")
            raise
        found = answer.get("BucketRegion") or self.region
        if found != self.region:
            return _fail("bucket", f"{bucket} is in {found}, not {self.region}", f"export AWS_REGION={found}")
        return CheckResult("bucket", "pass", bucket)

    def _store(self) -> CheckResult:
        store, key = self.backend.checked_store(), uuid.uuid4().hex
        began = time.monotonic()
        store.put_if_absent(key, b"smlt")
        wrote = time.monotonic()
        store.get(key)
        read = time.monotonic()
        try:
            store.put_if_absent(key, b"smlt")
            return _fail("store", "S3 overwrites what is to be created", "use a server that knows If-None-Match")
        except AlreadyExists:
            detail = f"written in {1e3 * (wrote - began):.0f} ms, read in {1e3 * (read - wrote):.0f} ms"
            return CheckResult("store", "pass", detail)
        finally:
            with suppress(SmltError):
                store.delete(key)

    def _role(self) -> CheckResult:
        arn = self.backend.options.role
        setup = "smlt cloud setup aws"
        if not arn:
            return _fail("role", "no [backend].role is named", setup)
        try:
            found = self._client("iam").get_role(RoleName=arn.rpartition("/")[2])["Role"]
        except Exception as error:
            if code_of(error) == "NoSuchEntity":
                return _fail("role", f"there is no role {arn}", setup)
            if explained(error, {"region": "", "bucket": "", "role": arn}).message.startswith("AWS denies"):
                return CheckResult("role", "skipped", "these credentials may not look at roles", "iam:GetRole")
            raise
        if "lambda.amazonaws.com" not in unquote(str(found["AssumeRolePolicyDocument"])):
            return _fail("role", f"{arn} does not trust lambda.amazonaws.com", setup)
        return CheckResult("role", "pass", arn)

    def _permissions(self) -> CheckResult:
        arn = str(self.identity["Arn"])
        if arn.endswith(":root"):
            return CheckResult("permissions", "pass", "the account's root may do everything")
        if ":assumed-role/" in arn:
            head, _, rest = arn.replace(":sts:", ":iam:").partition(":assumed-role/")
            arn = f"{head}:role/{rest.partition('/')[0]}"
        iam, denied, count = self._client("iam"), list[str](), 0
        try:
            for resource, actions in starter_actions(self.backend, str(self.identity["Account"])):
                answer = iam.simulate_principal_policy(
                    PolicySourceArn=arn, ActionNames=list(actions), ResourceArns=[resource]
                )["EvaluationResults"]
                count += len(answer)
                denied += [each["EvalActionName"] for each in answer if each["EvalDecision"] != "allowed"]
        except Exception as error:
            if not code_of(error):
                raise
            mend = "let these credentials use iam:SimulatePrincipalPolicy"
            return CheckResult("permissions", "skipped", f"they cannot be asked for ({code_of(error)})", mend)
        if denied:
            return _fail("permissions", f"missing: {', '.join(denied)}", "smlt cloud setup aws")
        return CheckResult("permissions", "pass", f"all {count} that a run takes")

    def _functions(self) -> CheckResult:
        self._client("lambda").list_functions(MaxItems=1)
        return CheckResult("functions", "pass", f"Lambda answers; {self.backend.options.architecture}")

    def _quota(self) -> CheckResult:
        limit = self._client("lambda").get_account_settings()["AccountLimit"]
        free, most = int(limit["UnreservedConcurrentExecutions"]), self.backend.limits.max_workers
        if free < min(most, 2):
            return _fail("quota", f"{free} functions at once", "ask for a higher Lambda quota")
        return CheckResult("quota", "pass", f"{free} functions at once; a hand-over takes twice the workers")


def _python() -> CheckResult:
    found, (oldest, newest) = sys.version_info[:2], PYTHONS
    if oldest <= found <= newest:
        return CheckResult("python", "pass", f"{found[0]}.{found[1]}, and functions have the same")
    spans = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
    return _fail("python", f"Lambda has no Python {found[0]}.{found[1]}", f"use {spans}")


def _lithops() -> CheckResult:
    from smlt.backends.lithops.backend import check_lithops

    return check_lithops()


def _prices(backend: AwsBackend) -> CheckResult:
    catalog = backend.catalog
    days = (date.today() - date.fromisoformat(catalog.as_of)).days
    if days > FRESH_DAYS:
        return _fail("prices", f"of {catalog.as_of}, {days} days old", "smlt prices refresh aws")
    return CheckResult("prices", "pass", f"of {catalog.as_of}")


def _redis(backend: AwsBackend) -> CheckResult:
    from smlt.backends.channels import redis

    url = backend.options.redis_url
    if not url:
        return CheckResult("redis", "skipped", "none is named: S3 does", "--set backend.redis_url=…")
    began = time.monotonic()
    try:
        redis.probe(redis.spec_for(RunPlace("check", Path()), url))
    except SmltError as error:
        mend = error.hint or "is it the right server?"
        if backend.options.subnets:
            return CheckResult(
                "redis", "skipped", f"not reached from here, which is not in the VPC: {error.message}", mend
            )
        return _fail("redis", error.message, mend)
    return CheckResult("redis", "pass", f"{url} answers in {1e3 * (time.monotonic() - began):.0f} ms, from here")
