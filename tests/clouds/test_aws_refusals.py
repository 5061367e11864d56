"""What AWS refuses ends a run with the exit code of clouds and words that name it; what passes is waited for."""

from collections.abc import Iterator

import pytest

import smlt
from smlt.cli.main import main
from smlt.core.errors import CloudError
from tests.clouds.runs import DIGITS
from tests.clouds.settings import options
from tests.emulators.aws import Aws
from tests.emulators.refusing import Answer, Asked, Refusing, refusing
from tests.support.launching import ROOT

pytestmark = [pytest.mark.clouds, pytest.mark.timeout(600)]
LINEAR = f"{ROOT / 'tests' / 'support' / 'linear.py'}:Linear"


@pytest.fixture
def proxy(aws_user: Aws, monkeypatch) -> Iterator[Refusing]:
    with refusing(aws_user.url, lambda _: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def train(proxy: Refusing, aws: Aws, name: str, folder, **changes):
    backend = {**options(aws), "endpoint": proxy.url, **changes}
    settings = {**{f"backend.{key}": value for key, value in backend.items()}, "planner.name": "fixed"}
    return smlt.train(
        LINEAR, name=name, backend="aws", workers=2, memory="512MiB", epochs=2, global_batch=32, runs_dir=folder,
        settings=settings,
    )  # fmt: skip


def is_call(asked: Asked) -> bool:
    return asked.path.endswith("/invocations") and b"call_ids" in asked.body


@pytest.mark.parametrize(
    ("code", "status", "path", "said"),
    [
        ("AccessDeniedException", 403, "/2015-03-31/functions", "denies GetFunctionConfiguration"),
        ("AccessDeniedException", 403, "/2018-10-31/layers", "denies ListLayerVersions"),
        ("UnrecognizedClientException", 403, "/2018-10-31/layers", "does not know the credentials"),
        ("ExpiredTokenException", 403, "/2018-10-31/layers", "have expired"),
    ],
)
def test_a_refused_deployment(proxy, aws, tmp_path, code: str, status: int, path: str, said: str):
    proxy.rule = lambda asked: Answer(status, code) if asked.path.split("/smlt-")[0] == path else None
    with pytest.raises(CloudError, match=said) as caught:
        train(proxy, aws, f"refused-{code}-{said.split()[1]}", tmp_path)
    assert caught.value.exit_code == 4
    assert caught.value.hint


def test_a_refused_call(proxy, aws, tmp_path):
    proxy.rule = lambda asked: Answer(403, "AccessDeniedException") if is_call(asked) else None
    with pytest.raises(CloudError, match="denies Invoke"):
        train(proxy, aws, "refused-call", tmp_path)


def test_throttled_calls_are_made_again(proxy, aws, tmp_path):
    refused: list[str] = []

    def rule(asked: Asked) -> Answer | None:
        if is_call(asked) and len(refused) < 3:
            refused.append(asked.path)
            return Answer(429, "TooManyRequestsException")
        return None

    proxy.rule = rule
    result = train(proxy, aws, "throttled", tmp_path)
    assert (result.status, len(refused)) == ("succeeded", 3)
    assert result.summary.replacements == 0


def test_a_run_in_no_bucket(proxy, aws, tmp_path, capsys):
    command = ["train", f"{DIGITS}/task.py:Digits", "-b", "aws", "-w", "2", "-y", "--runs-dir", str(tmp_path)]
    settings = [
        "--memory",
        "2GiB",
        "--set",
        "backend.bucket=no-such-bucket",
        "--set",
        "backend.role=arn:aws:iam::0:role/x",
    ]
    assert main([*command, *settings]) == 4
    assert "no-such-bucket" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["bucket", "role"])
def test_what_must_be_named(proxy, aws, tmp_path, missing: str):
    with pytest.raises(smlt.core.errors.ConfigError, match=rf"\[backend\].{missing}"):
        train(proxy, aws, f"no-{missing}", tmp_path, **{missing: None})
