"""`smlt cloud setup`, `smlt build` and `smlt clean` where no account is needed: files, commands, refusals."""

import json

import pytest

from smlt._version import __version__

TASK = ("task.py:Linear",)
AWS = ("--set", "backend.region=eu-west-1", "--set", "backend.bucket=runs")


def test_what_an_account_needs_is_written_to_be_read(linear, main):
    code, out, _ = main("cloud", "setup", "aws", *AWS)
    assert code == 0
    template = json.loads((linear / "smlt-cloud" / "smlt-aws.json").read_text())
    assert {each["Type"] for each in template["Resources"].values()} == {
        "AWS::S3::Bucket",
        "AWS::IAM::Role",
        "AWS::IAM::ManagedPolicy",
    }
    assert "aws cloudformation deploy" in out
    assert "BucketName=runs" in out


def test_an_image_is_written_with_this_smlt_and_no_secret(linear, main, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    code, out, _ = main("build", *TASK, "-b", "aws", *AWS, "--set", 'job.requirements=["einops>=0.8"]', "-o", "json")
    assert code == 0
    told = json.loads(out)
    folder = linear / "smlt-image"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == told["files"]
    assert "einops>=0.8" in (folder / "requirements.txt").read_text().splitlines()
    assert __version__ in (folder / "function" / "smlt" / "_version.py").read_text()
    assert "entry_point.lambda_handler" in (folder / "Dockerfile").read_text()
    assert any("docker push" in command and "eu-west-1" in command for command in told["commands"])
    assert not [path for path in folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


def test_files_are_written_again_but_never_among_others(linear, main):
    assert [main("cloud", "setup", "aws", *AWS)[0] for _ in range(2)] == [0, 0]
    (linear / "smlt-cloud" / "mine.txt").write_text("mine")
    code, _, err = main("cloud", "setup", "aws", *AWS)
    assert code == 2
    assert "mine.txt" in err


@pytest.mark.parametrize("command", [("cloud", "setup", "local"), ("build", *TASK, "-b", "local")])
def test_where_nothing_is_needed(linear, main, command):
    code, _, err = main(*command)
    assert code == 2
    assert "backend 'local'" in err


def test_a_finished_run_is_cleaned_and_another_is_refused(linear, main):
    assert main("train", *TASK, "--name", "done", "--set", "job.steps=2", "-q")[0] == 0
    code, out, _ = main("clean", "done", "-o", "json")
    assert (code, json.loads(out)) == (0, {"removed": []})
    assert (linear / ".smlt" / "runs" / "done" / "model.safetensors").exists()
    code, _, err = main("clean", "nobody")
    assert code == 2
    assert "nobody" in err
    code, _, err = main("clean", "done", "--all")
    assert code == 2
    assert "--all" in err
