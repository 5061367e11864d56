"""Ranks are processes, and processes die."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

import os
import signal
from typing import ClassVar

import numpy as np
import pytest

from smlt.core.errors import PeerLost
from smlt.core.storage import Channel
from smlt.testing.channel.suite import (
    MEMBERS,
    PATIENCE_S,
    ChannelSuite,
    Connect,
    OpenChannel,
    get_or_lost,
    key_of,
)
from smlt.testing.team import Team


class ProcessContract(ChannelSuite):
    """What holds between processes.

    Attributes:
        steps: in which processes exchange values.
    """

    steps: ClassVar[int] = 40

    def test_processes_exchange_values(self, open_channel: OpenChannel, team: Team) -> None:
        arguments = [(open_channel, rank, MEMBERS, self.steps) for rank in range(MEMBERS)]
        assert team.run(_exchange, arguments) == [self.steps * MEMBERS] * MEMBERS

    def test_processes_wait_for_each_other(self, open_channel: OpenChannel, team: Team) -> None:
        arguments = [(open_channel, rank, 5 * self.steps) for rank in range(2)]
        assert team.run(_take_turns, arguments) == [5 * self.steps] * 2

    def test_a_writer_that_dies_hurts_no_reader(self, connect: Connect, open_channel: OpenChannel, team: Team) -> None:
        reader, third = connect(1), connect(2)
        team.start(_write_and_die, open_channel, member=0)
        with pytest.raises(EOFError):
            team.result(0)
        assert get_or_lost(reader, key_of(0)) in (b"last words", None)
        with pytest.raises(PeerLost):
            reader.get(key_of(0, 1), timeout_s=0.05)
        third.put(key_of(2), [b"still here"])
        assert reader.get(key_of(2), timeout_s=PATIENCE_S) == b"still here"

    def test_a_reader_of_a_writer_that_dies_gives_up(self, open_channel: OpenChannel, team: Team) -> None:
        team.start(_take_turns, open_channel, 1, 10, True, member=1)
        team.start(_take_turns, open_channel, 0, 10, True, member=0)
        with pytest.raises(EOFError):
            team.result(0)
        with pytest.raises(PeerLost):
            team.result(1)

    def test_a_reader_that_dies_hurts_no_writer(self, connect: Connect, open_channel: OpenChannel, team: Team) -> None:
        writer = connect(0)
        team.start(_read_and_die, open_channel, member=1)
        writer.put(key_of(0), [b"0"])
        with pytest.raises(EOFError):
            team.result(1)
        writer.discard(key_of(0))
        writer.put(key_of(0, 1), [b"1"])
        assert connect(2).get(key_of(0, 1), timeout_s=PATIENCE_S) == b"1"


_kept: list[Channel] = []


def _open_and_keep(open_channel: OpenChannel, rank: int) -> Channel:
    """A client that stays open when the task of its process ends: others may still read what it wrote last."""
    while _kept:
        _kept.pop().close()
    channel = open_channel(0, 0, rank)
    _kept.append(channel)
    return channel


def _exchange(open_channel: OpenChannel, rank: int, world_size: int, steps: int) -> int:
    """Every step publish a value from memory that alternates, and a copied one, and read everyone's.

    As ranks do: the memory of step t is used again at t + 2, when all are known to have read it.

    Returns:
        How many values were what their writer wrote.
    """
    channel = _open_and_keep(open_channel, rank)
    channel.reserve(2 * 40_000)
    memories = [channel.allocate(40_000) for _ in range(2)]
    out = np.zeros(10_000, np.float32)
    right = 0
    for step in range(steps):
        for piece in ("large", "small"):
            channel.discard(key_of(rank, step - 2, piece))
        np.frombuffer(memories[step % 2], np.float32)[:] = step * 100 + rank
        channel.put(key_of(rank, step, "large"), [memories[step % 2]])
        channel.put(key_of(rank, step, "small"), [b"%d" % step, bytes(step)])
        for peer in range(world_size):
            copied = channel.get_into(key_of(peer, step, "large"), out.data, timeout_s=PATIENCE_S)
            small = channel.get(key_of(peer, step, "small"), timeout_s=PATIENCE_S)
            is_right = copied == 40_000 and bool((out == step * 100 + peer).all())
            right += is_right and small == b"%d" % step + bytes(step)
    return right


def _take_turns(open_channel: OpenChannel, rank: int, turns: int, dies: bool = False) -> int:
    """Two ranks that answer each other; rank 0 dies, if told so, when rank 1 waits for one more turn."""
    channel = _open_and_keep(open_channel, rank)
    for turn in range(turns):
        for speaker in (0, 1):
            if speaker == rank:
                channel.put(key_of(rank, turn), [b"%d" % turn])
            else:
                assert channel.get(key_of(speaker, turn), timeout_s=PATIENCE_S) == b"%d" % turn
    if dies and rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if dies:
        channel.get(key_of(0, turns), timeout_s=0.2)
    return turns


def _write_and_die(open_channel: OpenChannel) -> None:
    channel = open_channel(0, 0, 0)
    channel.put(key_of(0), [b"last words"])
    channel.allocate(1000)[:] = b"x" * 1000
    os.kill(os.getpid(), signal.SIGKILL)


def _read_and_die(open_channel: OpenChannel) -> None:
    channel = open_channel(0, 0, 1)
    assert channel.get(key_of(0), timeout_s=PATIENCE_S) == b"0"
    os.kill(os.getpid(), signal.SIGKILL)
