"""A RankSpec for tests: rank 0 of 1 unless stated otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smlt._version import __version__
from smlt.core.backend import RankSpec
from smlt.core.storage import ChannelSpec, StoreSpec

SPEC = RankSpec(
    run="test",
    generation=1,
    rank=0,
    world_size=1,
    incarnation=0,
    controller_epoch=1,
    smlt_version=__version__,
    store=StoreSpec("memory", "memory://test"),
    channel=ChannelSpec("none", ""),
    job={},
    bundle_sha256="",
    task_module="",
    task_class="",
    task_payload=b"",
    scratch="",
    threads=1,
    beat_s=0.01,
    orphan_grace_s=10.0,
    lease_s=20.5,
    time_limit_s=None,
    memory_mib=1024,
)


def rank_spec(**fields: Any) -> RankSpec:
    return replace(SPEC, **fields)
