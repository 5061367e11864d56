"""What is asked for, and what of it can be measured on a machine."""

from __future__ import annotations

import pytest

from smlt.bench.plan import Machine, plan_for
from smlt.bench.request import Setting, parse
from smlt.core.errors import ConfigError

OFFERED = ("shared_memory", "redis", "reducing", "object")


def machine(*missing: str) -> Machine:
    """One that lacks these packages, or a "server"."""
    return Machine(lambda name: name not in missing, lambda: "server" not in missing)


def test_every_pair_of_workers_and_megabytes_is_a_setting():
    request = parse(OFFERED, workers="2,8", megabytes="1, 0.5")
    assert request.settings == [Setting(2, 1), Setting(2, 0.5), Setting(8, 1), Setting(8, 0.5)]
    assert Setting(2, 46).elements == 11_500_000
    assert Setting(2, 0.000004).elements == 1


def test_without_names_all_that_can_run_is_measured():
    plan = plan_for(parse(OFFERED), OFFERED, machine())
    assert (plan.channels, plan.peers, plan.left_out) == (OFFERED, ("gloo", "lambdaml"), ())
    assert plan.variants[0] == "gloo"


def test_what_is_named_is_measured_and_nothing_else():
    plan = plan_for(parse(OFFERED, channels="object", peers="redis-py,gloo"), OFFERED, machine())
    assert plan.variants == ("redis-py", "gloo", "object")
    assert plan_for(parse(OFFERED, channels="", peers="gloo"), OFFERED, machine()).variants == ("gloo",)
    assert not plan_for(parse(OFFERED, channels="object", peers=""), OFFERED, machine("torch")).wants_redis


def test_by_default_what_cannot_run_is_left_out_and_told():
    plan = plan_for(parse(OFFERED), OFFERED, machine("server"))
    assert (plan.channels, plan.peers) == (("shared_memory", "reducing", "object"), ("gloo",))
    assert {item.name for item in plan.left_out} == {"redis", "lambdaml"}
    assert all("smlt[bench]" in item.why for item in plan.left_out)
    plan = plan_for(parse(OFFERED), OFFERED, machine("redis"))
    assert (plan.channels, plan.peers) == (OFFERED, ("gloo",))


def test_a_server_that_is_named_needs_no_other():
    plan = plan_for(parse(OFFERED, redis_url="redis://there:7000"), OFFERED, machine("server"))
    assert "redis" in plan.channels
    assert plan.wants_redis


@pytest.mark.parametrize(
    ("asked", "missing", "mend"),
    [
        ({"channels": "redis"}, "server", "smlt[bench]"),
        ({"peers": "lambdaml"}, "redis", "smlt[bench]"),
        ({"peers": "gloo,lambdaml-hscan"}, "redis", "smlt[bench]"),
        ({"peers": "redis-py"}, "hiredis", "smlt[bench]"),
        ({"peers": "redis-py"}, "server", "--redis-url"),
        ({"peers": "gloo"}, "torch", "smlt[torch]"),
        ({}, "torch", "smlt[torch]"),
    ],
)
def test_what_was_asked_for_and_cannot_run_is_an_error_that_says_what_to_install(asked, missing, mend):
    with pytest.raises(ConfigError) as caught:
        plan_for(parse(OFFERED, **asked), OFFERED, machine(missing))
    assert mend in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("channels", "objekt"),
        ("peers", "nccl"),
        ("workers", "1"),
        ("workers", "2.5"),
        ("workers", "65"),
        ("workers", "-2"),
        ("workers", "²"),
        ("workers", "2,2"),
        ("workers", ","),
        ("megabytes", "0"),
        ("megabytes", "-1"),
        ("megabytes", "nan"),
        ("megabytes", "inf"),
        ("megabytes", "much"),
        ("megabytes", ""),
        ("rounds", "0"),
        ("rounds", "many"),
        ("redis_url", "http://there"),
        ("redis_url", ""),
        ("redis_url", "redis://:secret@there"),
        ("redis_password_from", "CACHE_PASSWORD"),
    ],
)
def test_a_mistake_is_told_with_its_flag(flag, text):
    with pytest.raises(ConfigError) as caught:
        parse(OFFERED, **{flag: text})
    problem = caught.value.problems[0]
    assert problem.key == "--" + flag.replace("_", "-")
    assert problem.hint
    assert "secret" not in str(caught.value)


def test_all_mistakes_are_told_at_once_and_the_nearest_name_with_them():
    with pytest.raises(ConfigError) as caught:
        parse(OFFERED, channels="objekt", workers="1,x", rounds="0")
    assert len(caught.value.problems) == 4
    assert "did you mean 'object'?" in str(caught.value)


def test_there_must_be_something_to_measure():
    with pytest.raises(ConfigError, match="neither a channel nor a peer"):
        parse(OFFERED, channels="", peers="")
