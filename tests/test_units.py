import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.units import (
    Every,
    format_bytes,
    format_duration,
    format_usd,
    parse_duration_s,
    parse_every,
    parse_memory_mib,
    parse_usd,
    with_unit,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20s", 20), ("30m", 1800), ("30min", 1800), ("1.5h", 5400), ("2h30m", 9000), ("2h 30m", 9000), ("90", 90),
        (90, 90), (0.5, 0.5), ("250ms", 0.25), ("1d12h", 129600), (" 1H ", 3600), ("1s 500ms", 1.5),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "30x", "m", "1m30", "30m2h", "1h1h", "-5s", "0", 0, -1, True, "1,5h"])
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"not a duration: .* like 90s|more than 0"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "usd"), [("2usd", 2), ("$2", 2), ("2$", 2), ("0.50 USD", 0.5), (3, 3), ("1.25", 1.25)]
)
def test_money(text, usd):
    assert parse_usd(text) == usd


@pytest.mark.parametrize("text", ["", "two", "2eur", "$2usd", "-1", 0, True, "1e3"])
def test_what_is_no_money_is_refused(text):
    with pytest.raises(ValueError, match=r"not an amount of money|more than 0"):
        parse_usd(text)


@pytest.mark.parametrize(
    ("text", "mib"), [("2GiB", 2048), ("512MiB", 512), ("1.5gib", 1536), ("1GB", 954), ("512 MB", 488)]
)
def test_memory(text, mib):
    assert parse_memory_mib(text) == mib


@pytest.mark.parametrize("text", ["2048", 2048, "2G", "GiB", "", "-1GiB", "0.1MiB", "0GiB"])
def test_memory_wants_a_unit_and_a_sensible_size(text):
    with pytest.raises(ValueError, match=r"with a unit|less than 1 MiB|more than 0"):
        parse_memory_mib(text)


@pytest.mark.parametrize("parse", [parse_duration_s, parse_usd])
@pytest.mark.parametrize("value", [math.inf, math.nan, "9" * 400])
def test_limits_are_finite(parse, value):
    with pytest.raises(ValueError, match="finite"):
        parse(value)


@pytest.mark.parametrize("text", ["0epochs", "epoch", "1", "3 days", "-1steps", ""])
def test_what_is_no_period_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="like 1epoch or 200steps"):
        parse_every(text)


@given(st.builds(Every, st.integers(1, 10**9), st.sampled_from(["epoch", "step"])))
def test_a_period_reads_back_as_written(every):
    assert parse_every(str(every)) == every


@given(st.floats(min_value=0.001, max_value=1e8))
def test_a_written_duration_reads_back_within_its_last_digit(seconds):
    half_a_digit_s = 0.0005 if seconds < 0.9995 else 0.05
    assert parse_duration_s(format_duration(seconds)) == pytest.approx(seconds, rel=0.025, abs=1.001 * half_a_digit_s)


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_written_money_reads_back_within_its_last_digit(amount):
    assert parse_usd(format_usd(amount)) == pytest.approx(amount, rel=0.006)


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_a_quantity_with_its_unit_reads_back_exactly(value):
    assert parse_duration_s(with_unit(value, "s")) == value
    assert parse_usd(with_unit(value, "usd")) == value


@given(st.integers(1, 10**7), st.sampled_from(["MiB", "GiB"]))
def test_memory_in_binary_units_is_exact(count, unit):
    assert parse_memory_mib(f"{count}{unit}") == count * (1024 if unit == "GiB" else 1)


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused_as_a_value(text):
    for parse in (parse_duration_s, parse_usd, parse_memory_mib):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert value > 0


def test_quantities_for_people():
    shown = [format_duration(s) for s in (0.84, 0.9999, 12.34, 59.96, 245, 3599.7, 7380, 200000)]
    assert shown == ["840 ms", "1.0 s", "12.3 s", "1 m 00 s", "4 m 05 s", "1 h 00 m", "2 h 03 m", "2 d 08 h"]
    assert [format_bytes(b) for b in (12, 1023, 1024**2 - 1, 5 * 2**30)] == ["12 B", "1023 B", "1.0 MiB", "5.0 GiB"]
    assert [format_usd(u) for u in (0, 0.5, 12.345, 0.00031274)] == ["$0.00", "$0.5000", "$12.35", "$0.0003127"]
