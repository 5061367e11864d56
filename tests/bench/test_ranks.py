"""Ranks that fail, die, or find a wrong sum: whoever measures hears of it, and nothing is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from smlt.backends.channels.object import spec_for
from smlt.bench.messages import Failure, Go, Leave, Line, Ready, Seating, Timing, Turn
from smlt.bench.rank import run
from smlt.bench.redis_peer import RedisMeeting
from smlt.bench.team import Team, seated
from smlt.core.errors import JobFailed
from smlt.core.storage import ChannelSpec, StoreSpec
from tests.support.valkey import Valkey, valkey


def seatings(folder: Path, world_size: int = 2, server: Valkey | None = None, **channels: ChannelSpec) -> list[Seating]:
    meeting = RedisMeeting(server.url, "test/") if server else None
    peers = ("redis-py",) if server else ("gloo",)
    return [
        Seating(rank, world_size, 100, channels, peers, str(folder / "gloo"), meeting) for rank in range(world_size)
    ]


def files(folder: Path) -> ChannelSpec:
    return spec_for(StoreSpec("file", (folder / "files").as_uri()))


def test_ranks_reduce_in_step_and_leave(tmp_path):
    with seated(seatings(tmp_path, object=files(tmp_path)), tmp_path) as team:
        pids = team.pids
        for step in range(3):
            for variant in ("gloo", "object"):
                timings = team.reduce(Turn(variant, step, check=True))
                assert all(timing.end_s >= timing.start_s for timing in timings)
                assert max(timing.start_s for timing in timings) <= max(timing.end_s for timing in timings)
    assert not any(map(psutil.pid_exists, pids))


def disturbed(seats: list[Seating], folder: Path, variant: str, disturb: Callable[[Team], None]) -> None:
    """Reduce once, disturb, and reduce again."""
    with seated(seats, folder) as team:
        team.reduce(Turn(variant, 0, check=True))
        disturb(team)
        team.reduce(Turn(variant, 1, check=True))


@pytest.mark.parametrize("variant", ["gloo", "object"])
def test_a_rank_that_is_killed_is_named_with_what_was_measured(tmp_path, variant):
    seats = seatings(tmp_path, object=files(tmp_path))
    with pytest.raises(JobFailed, match=rf"rank 1 is gone: killed by signal 9 \({variant}"):
        disturbed(seats, tmp_path, variant, lambda team: os.kill(team.pids[1], signal.SIGKILL))


def test_what_a_rank_raises_in_a_reduction_reaches_the_one_who_measures(tmp_path):
    with valkey(tmp_path) as server:
        seats = seatings(tmp_path, server=server)
        with pytest.raises(JobFailed, match=r"rank \d failed \(redis-py.*\): ConnectionError"):
            disturbed(seats, tmp_path, "redis-py", lambda team: server.kill())


def test_what_a_rank_raises_while_it_opens_reaches_the_one_who_measures(tmp_path):
    seats = seatings(tmp_path, redis=ChannelSpec("redis", "redis://127.0.0.1:1"))
    opening = r"rank \d failed \(opening its channels\): ChannelError: cannot reach"
    with pytest.raises(JobFailed, match=opening) as caught, seated(seats, tmp_path):
        pass
    assert "does the server run there" in caught.value.hint
    assert "Traceback" in caught.value.__notes__[0]


def test_ranks_that_do_not_get_on_are_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("smlt.bench.team.STALL_S", 0.0)
    with pytest.raises(JobFailed, match="no rank got on"), seated(seatings(tmp_path), tmp_path):
        pass


def test_ranks_are_gone_when_the_one_who_measures_gives_up(tmp_path):
    pids: list[int] = []

    def give_up(team: Team) -> None:
        pids.extend(team.pids)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        disturbed(seatings(tmp_path, object=files(tmp_path)), tmp_path, "object", give_up)
    assert pids
    assert not any(map(psutil.pid_exists, pids))


class Wrong:
    """A variant that gives what it gave before, or one element that is off."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._memory = np.zeros(100, np.float32)
        self._first = None

    def prepare(self, step):
        return self._memory

    def reduce(self, step):
        if self._first is None:
            self._first = self._memory.copy()
        result = self._first if self._kind == "old" else self._memory.copy()
        result[99] += self._kind == "off"
        return result

    def stats(self):
        return None


class Script:
    """The other end of a rank's pipe."""

    def __init__(self, *messages):
        self._messages = list(messages)
        self.heard = []

    def send(self, message):
        self.heard.append(message)

    def receive(self):
        if not self._messages:
            raise EOFError
        return self._messages.pop(0)


def alone(monkeypatch, kind, *messages) -> list[object]:
    monkeypatch.setattr("smlt.bench.rank.open_variants", lambda seating, stack: {"wrong": Wrong(kind)})
    line = Script(Seating(0, 1, 100, {}, (), "", None), *messages)
    run(line)
    return line.heard


def test_a_right_sum_passes(monkeypatch):
    turns = [each for step in range(3) for each in (Turn("wrong", step, check=True), Go())]
    heard = alone(monkeypatch, "right", *turns, Leave())
    assert [type(each) for each in heard] == [Ready] + [Ready, Timing] * 3


def test_a_wrong_sum_is_a_failure(monkeypatch):
    assert (
        alone(monkeypatch, "off", Turn("wrong", 0, check=True), Go())[-1].message == "wrong gave a wrong sum at step 0"
    )


def test_the_sum_of_the_step_before_is_a_wrong_one(monkeypatch):
    turns = [each for step in range(2) for each in (Turn("wrong", step, check=True), Go())]
    heard = alone(monkeypatch, "old", *turns)
    assert [type(each) for each in heard] == [Ready, Ready, Timing, Ready, Failure]
    assert heard[-1].message == "wrong gave a wrong sum at step 1"


def test_messages_arrive_as_they_were_sent():
    from multiprocessing.connection import Pipe

    ours, theirs = map(Line, Pipe())
    spec = ChannelSpec("redis", "redis://there", {"namespace": "smlt/x"})
    sent = [
        Seating(1, 2, 3, {"redis": spec}, ("gloo",), "/there", RedisMeeting("redis://there", "x")),
        Seating(1, 2, 3, {}, (), "/there", None),
        Turn("gloo", 5, check=False),
        Timing(1.0, 2.0, 0.5, {"put": 2}, 10, 20),
        Timing(1.0, 2.0, 0.5, None, 0, 0),
    ]
    for message in sent:
        ours.send(message)
        assert theirs.receive() == message
    ours.connection.close()
    with pytest.raises(EOFError):
        theirs.receive()
    theirs.connection.close()
