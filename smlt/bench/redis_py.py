"""Peer: what a careful user of redis-py would write: pipelines, hiredis, and readers that block on a token.

Each value is a string and, behind it, a list of one token: BLPOP and GETDEL for a piece, which one rank reads; BLMOVE
and GET for a sum, which many read. No polling, two round trips a step, and no copy that redis-py does not make itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from smlt.bench.redis_peer import TTL_S, RedisMeeting, RedisPeer
from smlt.bench.variant import Vector


class RedisPy(RedisPeer):
    """Scatter-reduce in two pipelines."""

    def __init__(self, meeting: RedisMeeting, rank: int, world_size: int, elements: int) -> None:
        super().__init__(meeting, rank, world_size, elements)
        self._result: Vector = np.zeros(elements, np.float32)
        self._sums = np.array_split(self._result, world_size)

    def reduce(self, step: int) -> Vector:
        """Scatter and take the pieces in one pipeline, give the sum and collect the others' in another."""
        total = self._sums[self._rank]
        pipe = self._client.pipeline(transaction=False)
        for owner in self._peers:
            self._put(pipe, self._key("piece", step, owner, self._rank), self._shards[owner])
        pieces = [self._key("piece", step, self._rank, peer) for peer in self._peers]
        for key in pieces:
            pipe.blpop([f"{key}:t"], timeout=0)
            pipe.getdel(key)
        np.copyto(total, self._shards[self._rank])
        for piece in self._values(pipe, len(pieces)):
            np.add(total, piece, out=total)
        self._put(pipe, self._key("sum", step, self._rank), total)
        for owner in self._peers:
            key = self._key("sum", step, owner)
            pipe.blmove(f"{key}:t", f"{key}:t", timeout=0)
            pipe.get(key)
        for owner, shard in zip(self._peers, self._values(pipe, len(self._peers)), strict=True):
            np.copyto(self._sums[owner], shard)
        return self._result

    def _forget(self, step: int) -> None:
        key = self._key("sum", step, self._rank)
        self._client.unlink(key, f"{key}:t")

    def _put(self, pipe: Any, key: str, vector: Vector) -> None:
        pipe.set(key, vector.data.cast("B") if vector.size else b"", ex=TTL_S)
        pipe.rpush(f"{key}:t", b"1")
        pipe.expire(f"{key}:t", TTL_S)
        self._stats.count("put", up=vector.nbytes)

    def _values(self, pipe: Any, count: int) -> list[Vector]:
        """Send the pipeline; the values are every second of its last answers."""
        found = pipe.execute()[-2 * count + 1 :: 2]
        for data in found:
            self._stats.count("get", down=len(data))
        return [np.frombuffer(data, np.float32) for data in found]
