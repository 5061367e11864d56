"""Peer: the ScatterReduce of LambdaML over Redis, built again so that it runs.

Source: "Towards Demystifying Serverless Machine Learning Training" (SIGMOD 2021, arXiv 2105.07806) and its code,
github.com/DS3Lab/LambdaML at e7d466e, communicator/redis_primitive.py, `reduce_scatter_batch`.

As there: redis-py on one connection, everything in turn; N - 1 puts of a slice, looking without pause for the N - 1
pieces of the own shard, get, `chunk = chunk + piece` and delete for each, one put of the reduced shard, looking for
the others' in the same way, and `np.concatenate` once a shard. Slices are pickled, as its models are (`*_nn`).

Repaired: the published path over Redis does not run (`obj["Key"]` and `.read()` of bytes, deleting the letters of a
key). Better for it than there: one connection that is kept, and old sums are deleted where no time counts. Its
requirements.txt names redis alone, hence a client without hiredis; a third form below has it.
"""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from smlt.bench.redis_peer import TTL_S, RedisPeer
from smlt.bench.variant import Vector

PIECES, SUMS = "tmp", "merged"
"""Buckets, as there."""


class ScatterReduce(RedisPeer):
    """What the two forms below have in common. Names are as there: owner_rank_step, and owner_step for sums."""

    def reduce(self, step: int) -> Vector:
        """Scatter, reduce, gather, each command waited for."""
        chunk: Vector = self._shards[self._rank]
        for owner in self._peers:
            self._put(PIECES, f"{owner}_{self._rank}_{step}", self._shards[owner])
        for name, piece in self._as_they_come(PIECES, {f"{self._rank}_{peer}_{step}" for peer in self._peers}):
            chunk = chunk + piece
            self._delete(PIECES, name)
        self._put(SUMS, f"{self._rank}_{step}", chunk)
        merged = {self._rank: chunk}
        for name, shard in self._as_they_come(SUMS, {f"{owner}_{step}" for owner in self._peers}):
            merged[int(name.partition("_")[0])] = shard
        result = merged[0]
        for owner in range(1, self._world_size):
            result = np.concatenate((result, merged[owner]))
        return result

    def _forget(self, step: int) -> None:
        self._delete(SUMS, f"{self._rank}_{step}")

    def _put(self, bucket: str, name: str, vector: Vector) -> None:
        self._do_put(bucket, name, self._packed(vector))
        self._stats.count("put", up=vector.nbytes)

    def _packed(self, vector: Vector) -> bytes:
        return pickle.dumps(vector)

    def _unpacked(self, data: bytes) -> Vector:
        vector: Vector = pickle.loads(data)
        self._stats.count("get", down=vector.nbytes)
        return vector

    @abstractmethod
    def _do_put(self, bucket: str, name: str, data: bytes) -> None: ...

    @abstractmethod
    def _delete(self, bucket: str, name: str) -> None: ...

    @abstractmethod
    def _as_they_come(self, bucket: str, names: set[str]) -> Iterator[tuple[str, Vector]]:
        """Look for values without pause, until all were found; whichever is there first comes first."""


class LambdaML(ScatterReduce):
    """Better than it was published: each key is known and asked for by GET, and values are plain strings."""

    plain = True

    def _do_put(self, bucket: str, name: str, data: bytes) -> None:
        self._client.set(self._key(bucket, name), data, ex=TTL_S)

    def _delete(self, bucket: str, name: str) -> None:
        self._client.delete(self._key(bucket, name))
        self._stats.count("delete")

    def _as_they_come(self, bucket: str, names: set[str]) -> Iterator[tuple[str, Vector]]:
        while names:
            for name in sorted(names):
                data = self._client.get(self._key(bucket, name))
                if data is None:
                    self._stats.count("miss")
                    continue
                names.remove(name)
                yield name, self._unpacked(data)


class LambdaMLHiredis(LambdaML):
    """Better still: the client's parser is hiredis, which LambdaML does not ask for, and slices are plain bytes."""

    plain = False

    def _packed(self, vector: Vector) -> bytes:
        return vector.tobytes()

    def _unpacked(self, data: bytes) -> Vector:
        self._stats.count("get", down=len(data))
        return np.frombuffer(data, np.float32)


class LambdaMLScan(ScatterReduce):
    """As it was published: a bucket is a hash, and looking into it is HSCAN, which downloads all its values."""

    plain = True

    def _do_put(self, bucket: str, name: str, data: bytes) -> None:
        self._client.hset(self._key(bucket), name, data)

    def _delete(self, bucket: str, name: str) -> None:
        self._client.hdel(self._key(bucket), name)
        self._stats.count("delete")

    def _as_they_come(self, bucket: str, names: set[str]) -> Iterator[tuple[str, Vector]]:
        while names:
            found = self._client.hscan(self._key(bucket), count=10_000)[1]
            self._stats.count("scan", down=sum(map(len, found.values())))
            for name in sorted(names & {field.decode() for field in found}):
                data = self._client.hget(self._key(bucket), name)
                names.remove(name)
                yield name, self._unpacked(data)
