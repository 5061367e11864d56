"""The suite on a channel of files; and nothing is asked of the store that would cost more than it must."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

import smlt
from smlt.backends.channels import object as object_channel
from smlt.core.storage import ChannelKey, StoreSpec
from smlt.testing.channel import ChannelContract, OpenChannel


class TestObjectChannel(ChannelContract):
    @pytest.fixture
    def open_channel(self, tmp_path: Path) -> OpenChannel:
        spec = object_channel.spec_for(StoreSpec("file", (tmp_path / "ours").as_uri()))
        return functools.partial(object_channel.ObjectChannel, spec)

    @pytest.fixture
    def open_elsewhere(self, tmp_path: Path) -> OpenChannel:
        spec = object_channel.spec_for(StoreSpec("file", (tmp_path / "theirs").as_uri()))
        return functools.partial(object_channel.ObjectChannel, spec)


def test_who_waits_asks_less_and_less_often(tmp_path: Path) -> None:
    spec = object_channel.spec_for(StoreSpec("file", tmp_path.as_uri()))
    now, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds
        if len(pauses) == 12:
            writer.put(ChannelKey(0, 0, 0, "late", 0), [b"value"])

    writer = object_channel.ObjectChannel(spec, 0, 0, 0)
    reader = object_channel.ObjectChannel(spec, 0, 0, 1, clock=lambda: now[0], sleep=sleep)
    assert reader.get(ChannelKey(0, 0, 0, "late", 0), timeout_s=60) == b"value"
    assert pauses == [min(0.5e-3 * 2**number, 50e-3) for number in range(12)]


def test_a_job_through_files_comes_to_the_bits_of_one_through_shared_memory(tmp_path: Path) -> None:
    task = Path(__file__).parents[1] / "support" / "linear.py"
    results = [
        smlt.train(
            f"{task}:Linear",
            workers=3,
            epochs=2,
            global_batch=16,
            runs_dir=tmp_path,
            settings={"sync.channel": channel},
        )
        for channel in ("shared_memory", "object")
    ]
    assert results[0].summary.state_sha256 == results[1].summary.state_sha256
    assert results[1].summary.allocation["sync"]["channel"] == "object"
    assert not list((tmp_path / results[1].summary.run / ".unlisted").glob("channel"))
