"""What every contribution and every reduced piece carries beside its numbers (protocol, "A step", rule 2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from smlt.core.errors import ProtocolError


@dataclass(frozen=True)
class Header:
    """The words of one rank in one step; merged over ranks, what all know at its commit.

    Attributes:
        step: the step it belongs to.
        end: the generation ends before this step; 0 for "no end announced". The largest one said counts.
        save: a checkpoint is due before this step; 0 for none. The largest one said counts.
        digest: xxh64 of the SHARED state before the step; 0 where this step does not compare.
        loss_sum, weight: the loss as a sum over what was weighed; they add up in rank order.
    """

    step: int
    end: int = 0
    save: int = 0
    digest: int = 0
    loss_sum: float = 0.0
    weight: float = 0.0

    SIZE: ClassVar[int] = 64
    _FORMAT: ClassVar[struct.Struct] = struct.Struct("<4sIQQQQdd")
    _MAGIC: ClassVar[bytes] = b"smlt"
    _VERSION: ClassVar[int] = 1

    def pack_into(self, out: memoryview) -> None:
        """Write the header into the first 64 bytes of `out`."""
        self._FORMAT.pack_into(
            out, 0, self._MAGIC, self._VERSION, self.step, self.end, self.save, self.digest, self.loss_sum, self.weight
        )

    def packed(self) -> bytes:
        """The header's 64 bytes; equal bytes are the same words, a NaN's included."""
        data = bytearray(self.SIZE)
        self.pack_into(memoryview(data))
        return bytes(data)

    @classmethod
    def unpack(cls, data: memoryview | bytes) -> Header:
        """Read a header; raises ProtocolError if the bytes are none."""
        if len(data) < cls.SIZE:
            raise ProtocolError(f"a contribution of {len(data)} bytes is too short for its header")
        magic, version, *fields = cls._FORMAT.unpack_from(data, 0)
        if magic != cls._MAGIC or version != cls._VERSION:
            raise ProtocolError(
                "a contribution does not start with smlt's header: a stranger's key, or another version"
            )
        return cls(*fields)


def merge(headers: Sequence[Header]) -> Header:
    """What all ranks said together, in rank order.

    Raises:
        ProtocolError: the ranks are at different steps, or their SHARED states differ: silent divergence is worse
            than a stop.
    """
    steps = {header.step for header in headers}
    if len(steps) != 1:
        raise ProtocolError(f"ranks are at different steps: {sorted(steps)}")
    digests = {header.digest for header in headers if header.digest}
    if len(digests) > 1:
        raise ProtocolError(
            f"the ranks' states differ before step {headers[0].step}",
            "something in the task is not deterministic across ranks: state kept outside the model and optimizer, "
            "or a model built from unseeded randomness",
        )
    loss_sum = weight = 0.0
    for header in headers:
        loss_sum += header.loss_sum
        weight += header.weight
    return Header(
        step=headers[0].step,
        end=max(header.end for header in headers),
        save=max(header.save for header in headers),
        digest=max(digests, default=0),
        loss_sum=loss_sum,
        weight=weight,
    )
