"""Values that travel between ranks: a header, then the spans of a piece of somebody's shard, without gaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from smlt.core.storage import Buffer
from smlt.core.sync.buckets import ContributionLayout, Span
from smlt.core.sync.header import Header, merge
from smlt.core.task import Array


@dataclass(frozen=True)
class Piece:
    """A part of one owner's shard that travels as one value: spans of regions, together at most so many bytes."""

    spans: tuple[Span, ...]
    size_bytes: int


def pieces_of(layout: ContributionLayout, owner: int, piece_bytes: int) -> list[Piece]:
    """An owner's shard cut into pieces, in the order in which they travel; never empty, so that all ranks are heard."""
    pieces: list[Piece] = []
    spans: list[Span] = []
    room = piece_bytes
    for span in layout.shard(owner):
        itemsize = layout.span_bytes(span) // span.elements
        start = 0
        while start < span.elements:
            if room < itemsize:
                pieces.append(_piece(layout, spans))
                spans, room = [], piece_bytes
            count = min(room // itemsize, span.elements - start)
            spans.append(Span(span.region, span.start + start, count))
            start += count
            room -= count * itemsize
    if spans or not pieces:
        pieces.append(_piece(layout, spans))
    return pieces


def _piece(layout: ContributionLayout, spans: Sequence[Span]) -> Piece:
    return Piece(tuple(spans), sum(layout.span_bytes(span) for span in spans))


def arrays_of(piece: Piece, regions: Sequence[Array]) -> list[Array]:
    """A piece's spans of the regions, in place."""
    return [regions[span.region][span.start : span.start + span.elements] for span in piece.spans]


def value_of(header: Header, piece: Piece, regions: Sequence[Array]) -> list[Buffer]:
    """The parts of a value; nothing is copied."""
    return [header.packed(), *(array.data.cast("B") for array in arrays_of(piece, regions))]


def size_of(piece: Piece) -> int:
    """Bytes of a value."""
    return Header.SIZE + piece.size_bytes


def cut(value: memoryview, piece: Piece, like: Sequence[Array]) -> Iterator[Array]:
    """The spans of a value that has come, in place."""
    at = Header.SIZE
    for span, array in zip(piece.spans, like, strict=True):
        yield np.frombuffer(value, array.dtype, span.elements, at)
        at += array.nbytes


def add_up(totals: Sequence[Array], contributions: Iterable[tuple[Header, Iterable[Array]]]) -> Header:
    """Put the sum of contributions, taken in their order, into `totals`; returns their headers merged.

    A contribution is done with before the next one is asked for, so that all may come in the same memory.
    """
    headers = []
    for number, (header, parts) in enumerate(contributions):
        headers.append(header)
        for total, part in zip(totals, parts, strict=True):
            if number == 0:
                np.copyto(total, part)
            else:
                np.add(total, part, out=total)
    return merge(headers)
