"""How a contribution lies in memory, and who reduces which part of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.sync.buckets import ALIGNMENT, ContributionLayout
from smlt.core.sync.header import Header
from smlt.core.task import Region

REGIONS = st.lists(
    st.builds(Region, st.sampled_from(["float32", "float64", "int64"]), st.integers(0, 200)), max_size=4
).map(tuple)


@given(REGIONS, st.integers(1, 12))
def test_every_element_has_one_owner(regions: tuple[Region, ...], world_size: int) -> None:
    layout = ContributionLayout(regions, world_size)
    owned = [np.zeros(region.elements, int) for region in regions]
    for rank in range(world_size):
        for span in layout.shard(rank):
            owned[span.region][span.start : span.start + span.elements] += 1
    assert all((count == 1).all() for count in owned)


@given(REGIONS, st.integers(1, 12))
def test_shards_are_even_but_for_a_cache_line_a_region(regions: tuple[Region, ...], world_size: int) -> None:
    layout = ContributionLayout(regions, world_size)
    for number in range(len(regions)):
        sizes = [
            sum(layout.span_bytes(span) for span in layout.shard(rank) if span.region == number)
            for rank in range(world_size)
        ]
        assert max(sizes) - min(sizes) <= 2 * ALIGNMENT


@given(REGIONS, st.integers(1, 12))
def test_regions_and_spans_start_on_cache_lines_behind_the_header(regions: tuple[Region, ...], world_size: int) -> None:
    layout = ContributionLayout(regions, world_size)
    memory = memoryview(bytearray(layout.size_bytes))
    arrays = layout.arrays(memory)
    assert [(array.dtype.name, array.size) for array in arrays] == [
        (region.dtype, region.elements) for region in regions
    ]
    for number, array in enumerate(arrays):
        array[:] = number + 1
    assert bytes(memory[: Header.SIZE]) == bytes(Header.SIZE)
    for rank in range(world_size):
        for span in layout.shard(rank):
            assert layout.offset_bytes(span) % ALIGNMENT == 0
            seen = np.frombuffer(memory, regions[span.region].dtype, span.elements, layout.offset_bytes(span))
            assert (seen == span.region + 1).all()


@given(REGIONS, st.integers(1, 12))
def test_a_reduced_shard_holds_its_spans_and_no_other_s(regions: tuple[Region, ...], world_size: int) -> None:
    layout = ContributionLayout(regions, world_size)
    for rank in range(world_size):
        spans = layout.shard(rank)
        memory = memoryview(bytearray(layout.shard_bytes(spans)))
        arrays = layout.shard_arrays(memory, spans)
        assert [array.size for array in arrays] == [span.elements for span in spans]
        for number, array in enumerate(arrays):
            array[:] = number + 1
        assert all((array == number + 1).all() for number, array in enumerate(arrays))
