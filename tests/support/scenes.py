"""Scenes for planners: a job of 11 million parameters on AWS, profiled or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smlt.core.catalog import load_catalog
from smlt.core.planner import PlanRequest, Sync
from smlt.core.profile import Profile, Speed
from smlt.core.scene import ChannelOffer, Scene
from smlt.core.storage import ChannelCapabilities
from smlt.core.task import Region

ELEMENTS = 11_000_000
OBJECT = ChannelOffer("object", ChannelCapabilities(True, False, None, 0.03), "stores", "s3")
REDIS = ChannelOffer("redis", ChannelCapabilities(False, False, None, 1e-4), "servers", "cache.r7g.large")

GUESSED = Profile(
    schema_version=1,
    task="task.py:Net",
    settings={},
    taken_on="2026-11-24",
    machine="Linux x86_64",
    examples=50_000,
    parameters=ELEMENTS,
    regions=(Region("float32", ELEMENTS, True),),
    state_bytes=12 * ELEMENTS,
    build_s=2.0,
    built_mib=500.0,
)
PROFILED = replace(
    GUESSED, stepped_mib=700.0, example_bytes=4e6, speed=Speed(8.0, 0.02, vcpu_exponent=0.9, vcpus=2, steps=40)
)
SCENE = Scene(
    profile=PROFILED,
    is_profiled_here=False,
    steps=2000,
    catalog=load_catalog("smlt.backends.aws"),
    functions="lambda_x86",
    channels=(OBJECT, REDIS),
    time_limit_s=900.0,
)
REQUEST = PlanRequest(
    workers=None,
    max_workers=64,
    memory_mib=None,
    memory_choices_mib=(512, 1024, 1769, 3538, 7076, 10240),
    vcpus_at_hand=None,
    global_batch=512,
    sync=Sync(channel="object"),
    scene=SCENE,
)


def request(**fields: Any) -> PlanRequest:
    return replace(REQUEST, **fields)


def guessed(**fields: Any) -> PlanRequest:
    return request(scene=replace(SCENE, profile=GUESSED), **fields)
