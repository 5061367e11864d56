"""Codecs: what a number becomes on the way, what is lost, and that what is lost arrives later."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.errors import ConfigError, ProtocolError
from smlt.core.sync.codecs import CODECS, Codec, codec_named
from smlt.core.sync.codecs.chunks import CHUNK
from smlt.core.task import Array

LARGEST = float(np.finfo(np.float32).max)
WILD = [0.0, -0.0, 1e-45, -1e-45, 1e-38, -6e-8, 3e-8, 6.1e-5, -65504.0, 65519.9, 65520.0, -1e6, LARGEST, -LARGEST]
LOST = [np.inf, -np.inf, np.nan, -np.nan]
SIXTEEN_BITS = {"bf16": torch.bfloat16, "fp16": torch.float16}
EVERY_CODEC = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


def unaligned(count: int, dtype: str) -> Array:
    """Memory at an odd address, full of ones."""
    return np.frombuffer(bytearray(b"\xff" * (count * np.dtype(dtype).itemsize + 1)), dtype, count, 1)


def encoded(codec: Codec, values: Array) -> bytes:
    memory = memoryview(bytearray(b"\xff" * codec.encoded_bytes(values.size)))
    codec.encode(values, memory)
    return bytes(memory)


def decoded(codec: Codec, data: bytes, elements: int) -> Array:
    out = np.full(elements, np.nan, np.float32)
    codec.decode(memoryview(data), out)
    return out


def sent(codec: Codec, values: Array) -> Array:
    """What the others get of these numbers."""
    return decoded(codec, encoded(codec, values), values.size)


def bits(values: Array) -> list[int]:
    """To compare zeros by their sign and NaN with itself."""
    return list(np.where(np.isnan(values), np.float32(np.nan), values).view(np.uint32))


@st.composite
def vectors(draw: st.DrawFn, wild: list[float] = WILD + LOST) -> Array:
    """Up to 5000 numbers of one kind, with wild ones strewn in."""
    size = draw(st.integers(0, 40) | st.integers(0, 5000))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = {
        "normal": random.standard_normal(size) * 10.0 ** draw(st.integers(-44, 37)),
        "any magnitude": random.standard_normal(size) * 10.0 ** random.uniform(-44, 37, size),
        "around a half": random.standard_normal(size) * 10.0 ** random.uniform(-9, 5.5, size),
        "few levels": random.integers(-2, 3, size) * 0.1,
        "mostly zero": random.standard_normal(size) * (random.random(size) < 0.005),
    }
    values = kinds[draw(st.sampled_from(sorted(kinds)))].astype(np.float32)
    for number in draw(st.lists(st.sampled_from(wild), max_size=8)):
        if size:
            values[random.integers(size)] = number
    return values


def test_codecs_are_found_by_name() -> None:
    assert {name: codec_named(name) for name in CODECS} == dict(CODECS)
    assert list(CODECS) == [codec.name for codec in CODECS.values()] == ["bf16", "fp16", "int8", "topk"]
    assert codec_named("fp32") is None


@pytest.mark.parametrize(("name", "hint"), [("fp61", "did you mean 'fp16'"), ("zip", "known: bf16, fp16, fp32, int8")])
def test_another_name_is_refused_with_those_there_are(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"no codec is called '{name}'") as caught:
        codec_named(name)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("bf16", {0: 0, 1: 4, 2: 4, 3: 8, 1000: 2000}),
        ("fp16", {0: 0, 1: 4, 2: 4, 3: 8, 1000: 2000}),
        ("int8", {0: 0, 1: 8, 4: 8, 5: 12, 1024: 1028, 1025: 1036, 2048: 2056}),
        ("topk", {0: 0, 1: 8, 100: 8, 101: 16, 10_000: 800}),
    ],
)
def test_the_size_depends_on_the_count_alone(name: str, sizes: dict[int, int]) -> None:
    assert {count: CODECS[name].encoded_bytes(count) for count in sizes} == sizes


@EVERY_CODEC
@given(count=st.integers(0, 10**9))
def test_what_follows_stays_aligned(codec: Codec, count: int) -> None:
    assert codec.encoded_bytes(count) % 4 == 0


@pytest.mark.parametrize("name", SIXTEEN_BITS)
@given(values=vectors())
def test_sixteen_bits_round_as_torch_does(name: str, values: Array) -> None:
    fits = np.where(np.isinf(values), values, np.clip(values, -65504, 65504)) if name == "fp16" else values
    expected = torch.from_numpy(fits).to(SIXTEEN_BITS[name]).to(torch.float32).numpy()
    assert bits(sent(CODECS[name], values)) == bits(expected)


@pytest.mark.parametrize("name", SIXTEEN_BITS)
def test_every_half_and_all_that_lies_about_the_middle_of_two(name: str) -> None:
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(SIXTEEN_BITS[name])
    numbers = halves.to(torch.float32).numpy()
    assert bits(decoded(CODECS[name], halves.view(torch.int16).numpy().tobytes(), 2**16)) == bits(numbers)

    finite = np.sort(numbers[np.isfinite(numbers)]).astype(np.float64)
    middles = ((finite[:-1] + finite[1:]) / 2).astype(np.float32)
    near = np.concatenate([middles, *(np.nextafter(middles, np.float32(to)) for to in (-np.inf, np.inf))])
    expected = torch.from_numpy(near).to(SIXTEEN_BITS[name]).to(torch.float32).numpy()
    assert bits(sent(CODECS[name], near)) == bits(expected)


def test_halves_below_the_normal_ones_outlive_a_mode_that_flushes_what_is_subnormal() -> None:
    values = np.arange(1, 1024, dtype=np.float32) * np.float32(2.0**-24)
    assert torch.set_flush_denormal(True)
    try:
        found = sent(CODECS["fp16"], values)
    finally:
        torch.set_flush_denormal(False)
    assert bits(found) == bits(values)


@given(vectors(WILD))
def test_int8_is_wrong_by_half_a_step_of_its_block(values: Array) -> None:
    found = sent(CODECS["int8"], values)
    for start in range(0, values.size, 1024):
        block = values[start : start + 1024].astype(np.float64)
        step = max(np.abs(block).max() / 127, 2.0**-126)
        # the scale is a float32, and so is the product: each is a little off
        assert np.abs(block - found[start : start + 1024]).max() <= step * (0.5 + 127 * 2.0**-22)
    assert not found[values == 0].any()


@given(vectors(WILD), st.data())
def test_int8_shows_what_is_not_finite_and_only_in_its_block(values: Array, data: st.DataObject) -> None:
    if values.size:
        place = data.draw(st.integers(0, values.size - 1))
        before, values[place] = sent(CODECS["int8"], values), data.draw(st.sampled_from(LOST))
        of_block = np.arange(values.size) // 1024 == place // 1024
        assert bits(sent(CODECS["int8"], values)) == bits(np.where(of_block, np.nan, before).astype(np.float32))


@pytest.mark.parametrize(("number", "arrives"), [(2.0**-127, 0), (1.5 * 2.0**-127, 2.0**-126), (1e-45, 0)])
def test_int8_keeps_numbers_back_that_have_no_scale(number: float, arrives: float) -> None:
    values = np.array([number, -number, 0], np.float32)
    assert sent(CODECS["int8"], values).tolist() == [arrives, -arrives, 0]
    assert any(encoded(CODECS["int8"], values)) == (arrives > 0)


def sent_by_topk(values: Array) -> Array:
    """Plainly: sorted by magnitude, the first ones among equals."""
    keys = np.where(np.isnan(values), np.inf, np.abs(values)).astype(np.float64)
    keys[np.isnan(values)] = 1e300
    keys[np.isinf(values)] = 1e200
    places = np.argsort(-keys, kind="stable")[: -(-values.size // 100)]
    expected = np.zeros_like(values)
    expected[places] = values[places]
    return expected


@given(vectors())
def test_topk_sends_the_largest_hundredth_as_it_is(values: Array) -> None:
    assert bits(sent(CODECS["topk"], values)) == bits(sent_by_topk(values))


@pytest.mark.parametrize("levels", [1, 2, 30, 1000, 10**6])
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.995])
@pytest.mark.parametrize("size", [6000, CHUNK + 1, 3 * CHUNK])
def test_topk_is_exact_however_many_are_equal(size: int, zeros: float, levels: int) -> None:
    random = np.random.default_rng(levels)
    values = random.integers(1, levels + 1, size) * random.choice([-1.0, 1.0], size) * (random.random(size) >= zeros)
    for order in (values, np.sort(values), np.sort(values)[::-1], np.resize(values[:61], size)):
        assert bits(sent(CODECS["topk"], order.astype(np.float32))) == bits(sent_by_topk(order.astype(np.float32)))


@pytest.mark.parametrize("name", ["bf16", "fp16", "int8"])
@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1025])
def test_numbers_do_not_depend_on_those_of_other_blocks(name: str, size: int) -> None:
    values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    alone = [sent(CODECS[name], values[start : start + 1024]) for start in range(0, size, 1024)]
    assert bits(sent(CODECS[name], values)) == bits(np.concatenate(alone))


@EVERY_CODEC
@given(values=vectors())
def test_the_same_numbers_are_the_same_bytes_at_any_address(codec: Codec, values: Array) -> None:
    data = encoded(codec, values)
    askew = unaligned(values.size, "f4")
    askew[:] = values
    out = unaligned(len(data), "u1")
    codec.encode(askew, memoryview(out))
    assert out.tobytes() == data == encoded(codec, values)
    assert askew.tobytes() == values.tobytes()  # untouched
    codec.decode(memoryview(out), askew)
    assert bits(askew) == bits(decoded(codec, data, values.size))


@EVERY_CODEC
@given(values=vectors())
def test_what_was_decoded_encodes_to_the_same_bytes(codec: Codec, values: Array) -> None:
    data = encoded(codec, values)
    assert encoded(codec, decoded(codec, data, values.size)) == data


@EVERY_CODEC
@given(values=vectors())
def test_feedback_is_what_was_lost(codec: Codec, values: Array) -> None:
    lost = values.copy()
    out = memoryview(bytearray(codec.encoded_bytes(values.size)))
    codec.encode_with_feedback(lost, out)
    assert bytes(out) == encoded(codec, values)
    found = decoded(codec, bytes(out), values.size)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(lost, values - found, equal_nan=True)
    # nothing of a number is lost by Sterbenz' lemma: what arrives is 0 or within a factor of 2, unless it overflows
    exact = np.isfinite(found) & np.isfinite(values)
    if codec.name == "fp16":
        exact &= np.abs(values) <= 2 * 65504
    assert np.array_equal(found[exact] + lost[exact], values[exact])


@EVERY_CODEC
def test_what_is_lost_of_a_number_that_is_not_finite_is_not_finite(codec: Codec) -> None:
    values = np.array([1.0, np.nan, 2.0], np.float32)
    codec.encode_with_feedback(values, memoryview(bytearray(codec.encoded_bytes(3))))
    assert np.isnan(values[1])


SMALL_ONES = {"bf16": [1 + 2**-10, 1.0, -3.0], "fp16": [5e-9, 1.0, -3.0], "int8": [1e-3, 1.0, -0.7]}
SMALL_ONES["topk"] = [0.05, 1.0, -0.7]


@pytest.mark.parametrize("name", CODECS)
def test_with_feedback_the_mean_of_what_arrives_becomes_what_was_sent(name: str) -> None:
    values = np.array(SMALL_ONES[name], np.float32)
    first, *_ = sent(CODECS[name], values)
    assert first != values[0]  # too small, or too close to another one, to be sent as it is
    memory = memoryview(bytearray(CODECS[name].encoded_bytes(values.size)))
    lost, arrived = np.zeros_like(values), np.zeros(values.size)
    errors = []
    for step in range(1, 201):
        lost += values
        CODECS[name].encode_with_feedback(lost, memory)
        arrived += decoded(CODECS[name], bytes(memory), values.size)
        errors.append(np.abs(arrived / step / values - 1).max())
    assert max(errors[150:]) < min(0.2, errors[0] / 2)


@EVERY_CODEC
def test_threads_do_not_meddle(codec: Codec) -> None:
    random = np.random.default_rng(1)
    vectors = [random.standard_normal(2 * CHUNK + 7).astype(np.float32) * (n + 1) for n in range(8)]
    alone = [encoded(codec, values) for values in vectors]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            assert list(threads.map(lambda values: encoded(codec, values), vectors)) == alone


@EVERY_CODEC
@pytest.mark.parametrize("more", [-4, 4])
def test_another_number_of_bytes_is_refused(codec: Codec, more: int) -> None:
    memory = memoryview(bytearray(codec.encoded_bytes(300) + more))
    for call in (codec.encode, codec.encode_with_feedback, lambda values, data: codec.decode(data, values)):
        with pytest.raises(ProtocolError, match=f"300 numbers as {codec.name} are"):
            call(np.zeros(300, np.float32), memory)


@EVERY_CODEC
@pytest.mark.parametrize("values", [np.zeros(8), np.zeros((2, 4), np.float32), np.zeros(16, np.float32)[::2]], ids=str)
def test_other_arrays_are_refused(codec: Codec, values: Array) -> None:
    memory = memoryview(bytearray(codec.encoded_bytes(8)))
    for call in (codec.encode, codec.encode_with_feedback, lambda values, data: codec.decode(data, values)):
        with pytest.raises(ProtocolError, match="contiguous 1-D float32"):
            call(values, memory)


def test_a_place_beyond_the_last_number_is_refused() -> None:
    data = np.array([5, 0], np.uint32).tobytes()
    with pytest.raises(ProtocolError, match="place 5 of 5"):
        decoded(CODECS["topk"], data, 5)
