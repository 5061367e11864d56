"""Channels on which a contribution leaves in pieces, some of them while backward is still going on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.recovery.courses import Courses, Job
from tests.support.valkey import valkey

WIDE = Job().but({"job.params.hidden": 4000, "job.checkpoint_every": "5steps"})
"""300,000 parameters: more than one piece, and more than would be gathered."""


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.mark.parametrize(
    ("channel", "point"),
    [
        ("reducing", "sending"),
        ("reducing", "serving"),
        ("object", "sending"),
        ("object", "reducing"),
        ("object", "serving"),
        ("redis", "sending"),
        ("redis", "reducing"),
        ("redis", "serving"),
    ],
)
def test_killed_between_pieces(courses: Courses, redis_url: str, channel: str, point: str) -> None:
    job = WIDE.but({"sync.channel": channel, **({"backend.redis_url": redis_url} if channel == "redis" else {})})
    if point == "serving":
        assert courses.disturbed(job, "kill:rank=1,step=7", "kill:rank=0,at=serving").replacements >= 2
    else:
        assert courses.disturbed(job, f"kill:rank=1,step=7,at={point}").replacements >= 1
