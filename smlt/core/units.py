"""Quantities with units, as a user writes them: 30m, 2usd, 2GiB, 1epoch."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = r"(?P<number>\d+(?:\.\d+)?)"
_DURATION_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_MIB = {"mib": 1.0, "gib": 1024.0, "mb": 1e6 / 2**20, "gb": 1e9 / 2**20}


def parse_duration_s(text: str | float) -> float:
    """Seconds from "20s", "30m", "1.5h", "2h30m" or a plain number of seconds."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return _positive(float(text), "a duration")
    clean = str(text).strip().lower()
    if re.fullmatch(_NUMBER, clean):
        return _positive(float(clean), "a duration")
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d)", clean)
    if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d)\s*", "", clean):
        raise ValueError(f"not a duration: {text!r}; write seconds or use s, m, h, d, like 90s, 30m or 2h30m")
    return _positive(sum(float(number) * _DURATION_S[unit] for number, unit in parts), "a duration")


def parse_usd(text: str | float) -> float:
    """US dollars from "2usd", "$2", "0.50 USD" or a plain number."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return _positive(float(text), "an amount of money")
    match = re.fullmatch(rf"\$?\s*{_NUMBER}\s*(usd|\$)?", str(text).strip().lower())
    if not match:
        raise ValueError(f"not an amount of money: {text!r}; write US dollars like 2usd or 0.50usd")
    return _positive(float(match["number"]), "an amount of money")


def parse_memory_mib(text: str | float) -> int:
    """MiB from "2GiB", "512MiB", "1.5GB"; a number without a unit is refused, for it could mean either."""
    match = re.fullmatch(rf"{_NUMBER}\s*(?P<unit>mib|gib|mb|gb)", str(text).strip().lower())
    if not match:
        raise ValueError(f"not a size of memory: {text!r}; write it with a unit, like 512MiB or 2GiB")
    return round(_positive(float(match["number"]) * _SIZE_MIB[match["unit"]], "a size of memory"))


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


def _positive(value: float, what: str) -> float:
    if value <= 0:
        raise ValueError(f"{what} must be more than 0")
    return value


def format_duration(seconds: float) -> str:
    """A duration for people: 840 ms, 12.3 s, 4 m 05 s, 2 h 03 m."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} m {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} m"


def format_bytes(size: float) -> str:
    """A number of bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
