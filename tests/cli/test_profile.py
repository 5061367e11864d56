"""`smlt profile`: measures steps and sizes; a plan that is given the file says where its speed comes from."""

from __future__ import annotations

import json

import pytest

TASK = ("task.py:Linear", "--set", "job.global_batch=32")


@pytest.fixture
def profiled(linear, main):
    code, out, _ = main("profile", *TASK, "-o", "json")
    assert code == 0
    return json.loads(out)


def test_a_profile_has_speed_sizes_and_memory(profiled, linear) -> None:
    assert json.loads((linear / "profile.json").read_text()) == profiled
    assert (profiled["task"], profiled["examples"]) == ("task.py:Linear", 96)
    assert profiled["parameters"] > 0
    assert profiled["speed"]["examples_per_vcpu_s"] > 0
    assert profiled["speed"]["step_base_s"] > 0
    assert profiled["stepped_mib"] >= profiled["built_mib"] > 1
    assert profiled["state_bytes"] >= 4 * profiled["parameters"]


def test_a_plan_by_a_profile_says_so(profiled, main) -> None:
    code, out, _ = main("plan", *TASK, "-b", "aws", "--profile", "profile.json", "-o", "json")
    assert code == 0
    document = json.loads(out)
    assert document["assumptions"]["speed"] == "profiled"
    constants = {each["name"]: each for each in document["assumptions"]["constants"]}
    speed = constants["examples_per_vcpu_s"]
    assert speed["value"] == pytest.approx(profiled["speed"]["examples_per_vcpu_s"])
    assert speed["source"].startswith("profiled ")


def test_a_profile_of_another_job_is_refused(profiled, main) -> None:
    code, _, err = main("plan", *TASK, "--profile", "profile.json", "--set", "job.params.slow_s=1")
    assert code == 2
    assert "the profile was taken with [job].params = {}, the job has {'slow_s': 1}" in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{}", "its schema_version is not 1"), ("no JSON", "is no profile"), ('{"schema_version": 1}', "incomplete")],
)
def test_a_file_that_is_no_profile_is_refused(linear, main, text, expected) -> None:
    (linear / "profile.json").write_text(text)
    code, _, err = main("plan", *TASK, "--profile", "profile.json")
    assert code == 2
    assert "profile.json: is no profile" in err
    assert expected in err


def test_what_a_task_prints_stays_out_of_the_document(linear, smlt) -> None:
    done = smlt("profile", *TASK, "--set", "job.params.print_at=1", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["task"] == "task.py:Linear"


def test_a_task_that_fails_is_said_with_its_mistake(linear, main) -> None:
    code, _, err = main("profile", *TASK, "--set", "job.params.fail_at=0")
    assert code == 1
    assert "the user's own mistake" in err
