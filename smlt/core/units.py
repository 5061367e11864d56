"""Quantities with units, as a user writes them: 30m, 2usd, 2GiB, 1epoch; and as smlt writes them back."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_NUMBER = r"\d+(?:\.\d+)?"
_DURATION_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0, "ms": 1e-3}
# Largest unit first, each once: "30m2h" or "1h1h" is a slip of the pen.
_DURATION = re.compile(
    rf"(?:({_NUMBER})\s*(d)\s*)?(?:({_NUMBER})\s*(h)\s*)?(?:({_NUMBER})\s*(min|m(?!s))\s*)?"
    rf"(?:({_NUMBER})\s*(s)\s*)?(?:({_NUMBER})\s*(ms)\s*)?"
)
_SIZE_MIB = {"mib": 1.0, "gib": 1024.0, "mb": 1e6 / 2**20, "gb": 1e9 / 2**20}


def parse_duration_s(text: str | float) -> float:
    """Seconds from "20s", "30m", "1.5h", "2h30m" or a plain number of seconds."""
    number = _plain_number(text)
    if number is None:
        match = _DURATION.fullmatch(str(text).strip().lower())
        parts = [part for part in match.groups() if part] if match else []
        if not parts:
            raise ValueError(f"not a duration: {text!r}; write seconds or use s, m, h, d, like 90s, 30m or 2h30m")
        number = sum(float(count) * _DURATION_S[unit] for count, unit in zip(parts[::2], parts[1::2], strict=True))
    return _positive(number, "a duration")


def parse_usd(text: str | float) -> float:
    """US dollars from "2usd", "$2", "0.50 USD" or a plain number."""
    number = _plain_number(text)
    if number is None:
        match = re.fullmatch(rf"(?:\$\s*({_NUMBER})|({_NUMBER})\s*(?:usd|\$))", str(text).strip().lower())
        if not match:
            raise ValueError(f"not an amount of money: {text!r}; write US dollars like 2usd or 0.50usd")
        number = float(match[1] or match[2])
    return _positive(number, "an amount of money")


def parse_memory_mib(text: str | float) -> int:
    """MiB from "2GiB", "512MiB", "1.5GB"; a number without a unit is refused, for it could mean either."""
    match = re.fullmatch(rf"({_NUMBER})\s*(mib|gib|mb|gb)", str(text).strip().lower())
    if not match:
        raise ValueError(f"not a size of memory: {text!r}; write it with a unit, like 512MiB or 2GiB")
    mib = round(_positive(float(match[1]) * _SIZE_MIB[match[2]], "a size of memory"))
    if mib < 1:
        raise ValueError(f"less than 1 MiB of memory: {text!r}")
    return mib


@dataclass(frozen=True)
class Every:
    """A period of a job: so many steps or so many epochs."""

    count: int
    unit: str

    def __str__(self) -> str:
        return f"{self.count}{self.unit}" + ("s" if self.count != 1 else "")


def parse_every(text: str) -> Every:
    """A period from "1epoch", "3 epochs" or "200steps"."""
    match = re.fullmatch(r"(?P<count>\d+)\s*(?P<unit>epoch|step)s?", str(text).strip().lower())
    if not match or int(match["count"]) == 0:
        raise ValueError(f"not a period: {text!r}; write it like 1epoch or 200steps")
    return Every(int(match["count"]), match["unit"])


def _plain_number(text: str | float) -> float | None:
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return float(text)
    return float(text) if re.fullmatch(_NUMBER, str(text).strip()) else None


def _positive(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{what} must be finite; leave it out for none")
    if value <= 0:
        raise ValueError(f"{what} must be more than 0")
    return value


def with_unit(value: float, unit: str) -> str | float:
    """A quantity as text that the parsers read back exactly; the bare number where no short text does."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return text + unit if float(text) == value else value


def format_duration(seconds: float) -> str:
    """A duration for people, which `parse_duration_s` reads back: 840 ms, 12.3 s, 4 m 05 s, 2 h 03 m."""
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} m"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def format_bytes(size: float) -> str:
    """A number of bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1023.95:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def format_usd(amount: float) -> str:
    """US dollars for people: $0.00, $12.34, and four digits that matter below a cent's worth: $0.0003127."""
    if amount == 0 or abs(amount) >= 1:
        return f"${amount:.2f}"
    return f"${amount:.{3 - math.floor(math.log10(abs(amount)))}f}"
