"""Lists in a flag, separated by commas."""

from __future__ import annotations

from smlt.core.errors import ConfigError


def listed(text: str, flag: str, *, whole_numbers: bool = False) -> list[str]:
    """The items of a list separated by commas.

    Raises:
        ConfigError: there are none, one is there twice, or is no number where numbers are wanted.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items or len(set(items)) < len(items):
        told = "has one of them twice" if items else "is empty"
        raise ConfigError(f"{flag} {text!r} {told}", f"write it like {flag} {'1,2,4' if whole_numbers else 'a,b'}")
    wrong = [item for item in items if whole_numbers and not (item.isdecimal() and int(item))]
    if wrong:
        raise ConfigError(f"{flag} {text!r}: {wrong[0]!r} is no number of workers", f"write it like {flag} 1,2,4")
    return items
