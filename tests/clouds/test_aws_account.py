"""What an account is given once and what is taken back: the stack, the image's files, and cleaning."""

import json
from collections.abc import Iterator

import pytest

from smlt.backends.aws.backend import AwsBackend
from smlt.backends.aws.options import AwsOptions
from smlt.backends.aws.stack import template
from smlt.backends.lithops.calls import CallBoard, CallState
from smlt.cli.main import main
from smlt.core.backend import RunPlace
from smlt.core.plugins import load_registry
from tests.clouds.settings import BUCKET, options
from tests.emulators.aws import REGION, SERVICES, Aws, ministack
from tests.emulators.refusing import refusing
from tests.support.launching import ROOT

pytestmark = [pytest.mark.clouds, pytest.mark.timeout(600)]
TASK = [str(ROOT / "tests" / "support" / "linear.py") + ":Linear"]


@pytest.fixture(scope="module")
def aws(tmp_path_factory) -> Iterator[Aws]:
    with ministack(tmp_path_factory.mktemp("aws"), *SERVICES, "cloudformation") as aws:
        yield aws


def flags(aws: Aws, **changes: object) -> list[str]:
    return [
        part
        for name, value in options(aws, **changes).items()
        for part in ("--set", f"backend.{name}={json.dumps(value) if isinstance(value, tuple) else value}")
    ]


def test_the_stack_is_as_cloudformation_wants_it():
    from cfnlint.api import lint_all  # of the extra `clouds`, which who collects all tests need not have

    found = [str(each) for each in lint_all(json.dumps(template(), indent=2)) if not each.rule.id.startswith("I")]
    assert found == []


def test_the_stack_makes_what_a_run_needs(aws_user: Aws, tmp_path, capsys):
    assert main(["cloud", "setup", "aws", "--out", str(tmp_path / "out"), "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    body = (tmp_path / "out" / "smlt-aws.json").read_text()
    stacks = aws_user.client("cloudformation")
    stacks.create_stack(
        StackName="smlt",
        TemplateBody=body,
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": "BucketName", "ParameterValue": "made-by-the-stack"}],
    )
    stacks.get_waiter("stack_create_complete").wait(StackName="smlt", WaiterConfig={"Delay": 1})
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stacks.describe_stacks()["Stacks"][0]["Outputs"]}
    assert set(told["settings"]) == {"name", "bucket", "role"}
    made = AwsBackend(
        "aws", AwsOptions(bucket=outputs["Bucket"], role=outputs["Role"], region=REGION, endpoint=aws_user.url)
    )
    checks = {result.name: result for result in made.check()}
    assert {name: checks[name].status for name in ("bucket", "store", "role")} == dict.fromkeys(
        ("bucket", "store", "role"), "pass"
    )


def test_functions_may_do_nothing_beyond_their_bucket_and_log():
    statements = template()["Resources"]["FunctionRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    assert [statement["Resource"] for statement in statements if statement["Resource"] == "*"] == []
    actions = {action for statement in statements for action in statement["Action"]}
    assert {action.partition(":")[0] for action in actions} == {"s3", "logs"}


def test_functions_are_made_of_an_image_where_one_is_named(aws_user: Aws, tmp_path, monkeypatch):
    image = "000000000000.dkr.ecr.us-east-1.amazonaws.com/smlt:digits"
    with refusing(aws_user.url, lambda _: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        main(["train", *TASK, "-b", "aws", "-w", "2", "--memory", "512MiB", "--set", "job.steps=1", "--set",
              "job.global_batch=32", "-y", "--runs-dir", str(tmp_path), "--set", "planner.name=fixed",
              *flags(aws_user, endpoint=proxy.url, image=image)])  # fmt: skip
        created = [
            json.loads(asked.body) for asked in proxy.asked if asked.path == "/2015-03-31/functions" and asked.body
        ]
    assert [(each["PackageType"], each["Code"]) for each in created[:1]] == [("Image", {"ImageUri": image})]
    assert not {"Runtime", "Handler", "Layers"} & set(created[0])
    assert created[0]["Architectures"] == ["x86_64"]


def test_cleaning_a_run_leaves_its_result(aws_user: Aws, tmp_path, capsys):
    run = ["train", *TASK, "-b", "aws", "-w", "2", "--memory", "512MiB", "--name", "cleaned", "-y", "-q"]
    more = ["--set", "job.steps=4", "--set", "job.global_batch=32", "--set", "planner.name=fixed"]
    assert main([*run, *more, "--runs-dir", str(tmp_path), *flags(aws_user)]) == 0
    backend = AwsBackend("aws", AwsOptions.model_validate(options(aws_user)))
    store = load_registry().open_store(backend.object_store(RunPlace("cleaned", tmp_path)))
    CallBoard(store, "calls/x").say("1.0.0", CallState("running"))
    store.put("channel/1/0/0/a.0", b"gradients")
    capsys.readouterr()
    assert main(["clean", "cleaned", "--runs-dir", str(tmp_path), "-o", "json"]) == 0
    removed = json.loads(capsys.readouterr().out)["removed"]
    assert [name.partition("cleaned/")[2] for name in removed] == ["channel/1/0/0/a.0", "calls/x/1.0.0/state"]
    assert store.exists("model.safetensors")


def test_cleaning_all_leaves_runs_alone(aws_user: Aws, capsys):
    functions, s3 = aws_user.client("lambda"), aws_user.client("s3")
    assert functions.list_functions()["Functions"]
    assert functions.list_layers()["Layers"]
    assert main(["clean", "--all", "-b", "aws", *flags(aws_user), "-o", "json"]) == 0
    removed = json.loads(capsys.readouterr().out)["removed"]
    assert {name.partition(" ")[0] for name in removed} >= {"function", "layer"}
    assert functions.list_functions()["Functions"] == []
    assert functions.list_layers()["Layers"] == []
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert "smlt/cleaned/model.safetensors" in keys
    assert not [key for key in keys if key.startswith("lithops")]
