"""Peer: `torch.distributed.all_reduce` over gloo, what ranks use that can reach each other; every ratio is to it."""

from __future__ import annotations

from smlt.bench.variant import Variant, Vector


class Gloo(Variant):
    """A ring, or what gloo thinks best; in place, over TCP on this machine.

    Args:
        meeting: a file that does not exist yet, the same for all ranks.
        rank, world_size, elements: see `ChannelVariant`.
    """

    def __init__(self, meeting: str, rank: int, world_size: int, elements: int) -> None:
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        self._dist = dist
        self._tensor = torch.zeros(elements)
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)

    def prepare(self, step: int) -> Vector:
        """The tensor's memory."""
        vector: Vector = self._tensor.numpy()
        return vector

    def reduce(self, step: int) -> Vector:
        """In place."""
        self._dist.all_reduce(self._tensor)
        vector: Vector = self._tensor.numpy()
        return vector

    def close(self) -> None:
        """Leave the group."""
        self._dist.destroy_process_group()
