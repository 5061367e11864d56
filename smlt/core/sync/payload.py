"""One rank's numbers in a step, and how pieces of them travel: a header, then the spans of a piece, without gaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from smlt.core.storage import Buffer
from smlt.core.sync.buckets import Bucket, Span
from smlt.core.sync.codecs import Codec
from smlt.core.sync.finite import is_finite
from smlt.core.sync.header import Header, merge
from smlt.core.task import Array, Region

RESIDUAL = "residual/"
"""What the names of lost numbers begin with; the number of the region follows."""


def is_lossy(region: Region) -> bool:
    """Whether a codec carries the region's numbers."""
    return region.tolerant and region.dtype == "float32"


class Packing:
    """How spans of regions become bytes: as they are, or, where a region is tolerant, by a codec.

    Args:
        regions: of the contribution.
        codec: None for numbers as they are.
    """

    def __init__(self, regions: Sequence[Region], codec: Codec | None = None) -> None:
        self.codec = codec
        self.regions = tuple(regions)

    def codec_of(self, span: Span) -> Codec | None:
        """What the span travels by; None for its bytes as they are."""
        return self.codec if is_lossy(self.regions[span.region]) else None

    def span_bytes(self, span: Span) -> int:
        """Bytes that a span travels as."""
        codec = self.codec_of(span)
        return codec.encoded_bytes(span.elements) if codec else span.elements * self.regions[span.region].itemsize

    def size_bytes(self, piece: Bucket) -> int:
        """Bytes of a piece's value."""
        return Header.SIZE + sum(map(self.span_bytes, piece))

    def cut(self, value: memoryview, piece: Bucket) -> Iterator[tuple[Span, memoryview]]:
        """The spans of a value, in place."""
        at = Header.SIZE
        for span in piece:
            size = self.span_bytes(span)
            yield span, value[at : at + size]
            at += size


class Payload:
    """A rank's contribution and the sums, one array a region; and what of it a lossy codec has lost so far.

    What is lost of a contribution is added to the next one, and what the owner of a shard loses of its sum to the next
    sum (the two-sided error feedback of Tang et al., DoubleSqueeze, ICML 2019). One array a region holds both, as no
    rank sends its own shard to itself. The owner keeps what the others will decode, so all ranks have the same sums.

    Args:
        regions: of the contribution.
        codec: None for numbers as they are.

    Attributes:
        packing: of pieces.
        own: the contribution.
        sums: over all ranks.
    """

    def __init__(self, regions: Sequence[Region], codec: Codec | None = None) -> None:
        self.packing = Packing(regions, codec)
        self.own = [region.zeros() for region in regions]
        self.sums = [region.zeros() for region in regions]
        self._lost = {
            number: region.zeros()
            for number, region in enumerate(regions)
            if self.packing.codec_of(Span(number, 0, region.elements))
        }
        self._scratch = np.zeros(0, np.float32)
        self._encoded = memoryview(b"")

    def clear(self) -> list[Array]:
        """The contribution, zeroed, to be filled anew."""
        for array in self.own:
            array.fill(0)
        return self.own

    def commit(self) -> None:
        """What was lost in this step, which stands where the contribution was, is what the next one makes up for.

        Nothing makes up for what is not finite: it would never leave again.
        """
        for number in self._lost:
            if not is_finite(self.own[number]):
                self.own[number][~np.isfinite(self.own[number])] = 0
            self._lost[number], self.own[number] = self.own[number], self._lost[number]

    def private(self) -> dict[str, Array]:
        """What was lost up to the last commit, by region."""
        return {f"{RESIDUAL}{number}": array for number, array in self._lost.items()}

    def outgoing(self, header: Header, *pieces: Bucket) -> list[Buffer]:
        """The parts of a value of pieces of the contribution, each behind a header; valid until the next call.

        To be called once a step for every piece that is not of the own shard.
        """
        parts: list[Buffer] = []
        room = self._room_for(*pieces)
        for piece in pieces:
            parts.append(header.packed())
            for span, numbers in self.own_numbers(piece):
                if codec := self.packing.codec_of(span):
                    encoded, room = _split(room, self.packing.span_bytes(span))
                    codec.encode_with_feedback(numbers, encoded)
                    parts.append(encoded)
                else:
                    parts.append(numbers.data.cast("B"))
        return parts

    def add_up(
        self, piece: Bucket, contributions: Iterable[tuple[Header, memoryview | None]]
    ) -> tuple[Header, list[Buffer]]:
        """Put the sum of all contributions to a piece of the own shard, in rank order, into `sums`.

        To be called once a step for every piece of the own shard.

        Args:
            piece: which.
            contributions: header and value of every rank, None for the own one; each is done with before the next one
                is asked for, so that all may come in the same memory.

        Returns:
            The headers merged, and the parts of a value that carries the sum; valid until the next call.
        """
        headers = []
        for number, (header, value) in enumerate(contributions):
            headers.append(header)
            self.accumulate(
                self.own_numbers(piece) if value is None else self.numbers_of(value, piece), first=not number
            )
        merged = merge(headers)
        return merged, [merged.packed(), *self._encode_sums(piece)]

    def collect(self, piece: Bucket, value: memoryview) -> None:
        """Take over the sum of a piece of another's shard."""
        for span, data in self.packing.cut(value, piece):
            total = span.of(self.sums)
            if codec := self.packing.codec_of(span):
                codec.decode(data, total)
            else:
                np.copyto(total, np.frombuffer(data, total.dtype))

    def accumulate(self, numbers: Iterable[tuple[Span, Array]], *, first: bool) -> None:
        """Add one rank's numbers to `sums`; those of the first rank take their place."""
        for span, part in numbers:
            total = span.of(self.sums)
            if first:
                np.copyto(total, part)
            else:
                np.add(total, part, out=total)

    def own_numbers(self, piece: Bucket) -> Iterator[tuple[Span, Array]]:
        """The spans of the contribution, made up for what was lost before; to be called once a step for each."""
        for span in piece:
            numbers = span.of(self.own)
            if self.packing.codec_of(span):
                numbers += span.of(self._lost)
            yield span, numbers

    def numbers_of(self, value: memoryview, piece: Bucket) -> Iterator[tuple[Span, Array]]:
        """The spans of a value, each valid until the next one."""
        for span, data in self.packing.cut(value, piece):
            if codec := self.packing.codec_of(span):
                if self._scratch.size < span.elements:
                    self._scratch = np.empty(span.elements, np.float32)
                numbers = self._scratch[: span.elements]
                codec.decode(data, numbers)
                yield span, numbers
            else:
                yield span, np.frombuffer(data, self.packing.regions[span.region].dtype)

    def _encode_sums(self, piece: Bucket) -> Iterator[memoryview]:
        room = self._room_for(piece)
        for span in piece:
            total = span.of(self.sums)
            if codec := self.packing.codec_of(span):
                lost = span.of(self.own)
                np.copyto(lost, total)
                encoded, room = _split(room, self.packing.span_bytes(span))
                codec.encode_with_feedback(lost, encoded)
                codec.decode(encoded, total)
                yield encoded
            else:
                yield total.data.cast("B")

    def _room_for(self, *pieces: Bucket) -> memoryview:
        size = sum(map(self.packing.size_bytes, pieces))
        if self._encoded.nbytes < size and self._lost:
            self._encoded = memoryview(bytearray(size))
        return self._encoded


def _split(room: memoryview, size: int) -> tuple[memoryview, memoryview]:
    return room[:size], room[size:]
