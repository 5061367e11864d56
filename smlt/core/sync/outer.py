"""Local SGD's outer step: from how far the ranks' weights have moved, on average, to weights that all take over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smlt.core.errors import ConfigError
from smlt.core.sync.buckets import ALIGNMENT, Bucket, shard_of, whole
from smlt.core.sync.finite import is_finite
from smlt.core.task import Array, Region


class OuterOptimizer:
    """Nesterov momentum on the mean movement since the ranks last agreed; plain averaging of what is not trained.

    DiLoCo, Douillard et al. 2023, arXiv 2311.08105: with movement D = anchor - mean(weights), m = mu m + D and
    anchor = anchor - rate (D + mu m). With rate 1 and mu 0 it is the averaging of local SGD (Stich 2018, arXiv
    1805.09767).

    Args:
        regions: of the weights; tolerant ones are trained parameters.
        learning_rate, momentum: rate and mu.

    Attributes:
        anchors: the weights that all ranks agreed on last; one array a region.
        momenta: m, of the same shapes.
    """

    def __init__(self, regions: Sequence[Region], learning_rate: float, momentum: float) -> None:
        self._regions = tuple(regions)
        self._rate, self._momentum = np.float32(learning_rate), np.float32(momentum)
        self.anchors = [region.zeros() for region in regions]
        self.momenta = [region.zeros() for region in regions]

    def movement(self, weights: Sequence[Array], fragment: Bucket, out: Sequence[Array]) -> None:
        """How far the weights of a fragment have moved from the anchors, into one array a span.

        What has not moved has moved by 0, an infinity too, as a mask may hold it: their difference would be NaN.
        """
        for span, array in zip(fragment, out, strict=True):
            anchor, weight = span.of(self.anchors), span.of(weights)
            with np.errstate(invalid="ignore"):
                np.subtract(anchor, weight, out=array)
            if not is_finite(array):
                array[anchor == weight] = 0

    def step(self, fragment: Bucket, sums: Sequence[Array], ranks: int) -> None:
        """Move the anchors of a fragment; `sums`, of all ranks' movements, are used up."""
        for span, moved in zip(fragment, sums, strict=True):
            moved /= moved.dtype.type(ranks)
            anchor, momentum = span.of(self.anchors), span.of(self.momenta)
            if not self._regions[span.region].tolerant:
                anchor -= moved
                continue
            momentum *= self._momentum
            momentum += moved
            moved += self._momentum * momentum
            moved *= self._rate
            anchor -= moved

    def take_over(self, fragment: Bucket, weights: Sequence[Array]) -> None:
        """Put the anchors of a fragment in the place of the weights."""
        for span in fragment:
            span.of(weights)[:] = span.of(self.anchors)


def fragments_of(regions: Sequence[Region], fragments: int) -> list[Bucket]:
    """The weights in so many parts of about the same size, cut between cache lines.

    Raises:
        ConfigError: a part would be empty.
    """
    most = max(-(-region.size_bytes // ALIGNMENT) for region in regions)
    if fragments > most:
        raise ConfigError(
            f"[sync].fragments = {fragments}, but the weights can be cut into {most} parts at most",
            f"each part has {ALIGNMENT} bytes or more; choose [sync].fragments = {most} or less",
        )
    return [shard_of(whole(regions), regions, number, fragments) for number in range(fragments)]
