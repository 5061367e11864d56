"""What the peers over Redis have in common: a client of the package redis, keys, shards, and counting."""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from smlt.bench.variant import Variant, Vector
from smlt.core.storage import ChannelStats

TTL_S = 600
"""The server forgets by itself what a run that was killed left."""


@dataclass(frozen=True)
class RedisMeeting:
    """Where peers meet in Redis.

    Attributes:
        url: of the server.
        prefix: what all keys begin with.
        password_from: the environment variable that holds the password; empty for none.
    """

    url: str
    prefix: str
    password_from: str = ""


def connect(meeting: RedisMeeting, *, plain: bool = False) -> Any:
    """A client of redis-py that waits as long as it takes.

    With hiredis where it is installed, unless `plain`: then as `pip install redis` alone makes it.

    One connection throughout: taking it from a pool for each command costs a system call more.
    """
    import redis

    options: dict[str, Any] = {"password": os.environ[meeting.password_from]} if meeting.password_from else {}
    if plain:
        from redis._parsers import _RESP2Parser

        options |= {"parser_class": _RESP2Parser, "protocol": 2}
    return redis.Redis.from_url(meeting.url, single_connection_client=True, socket_timeout=None, **options)


class RedisPeer(Variant):
    """Scatter-reduce through Redis: each rank owns a shard, as even as can be."""

    plain: ClassVar[bool] = False
    """Whether the client is redis-py without hiredis."""

    def __init__(self, meeting: RedisMeeting, rank: int, world_size: int, elements: int) -> None:
        self._meeting = meeting
        self._rank, self._world_size = rank, world_size
        self._peers = [peer for peer in range(world_size) if peer != rank]
        self._own: Vector = np.zeros(elements, np.float32)
        self._shards = np.array_split(self._own, world_size)
        self._stats = ChannelStats()
        self._client = connect(meeting, plain=self.plain)

    def prepare(self, step: int) -> Vector:
        """This rank's vector; the sum that it published in the step before is forgotten here, where no time counts."""
        self._forget(step - 1)
        return self._own

    @abstractmethod
    def _forget(self, step: int) -> None:
        """Delete the sum that this rank published in a step, if there was such a step."""

    def _key(self, *words: object) -> str:
        return self._meeting.prefix + "_".join(map(str, (type(self).__name__, *words)))

    def stats(self) -> ChannelStats:
        """Counted here: one a command that moves a vector's bytes or looks for them."""
        return self._stats

    def close(self) -> None:
        """Disconnect; the last sums expire, or are swept with the run."""
        self._client.close()
