"""What is to be measured, as the user writes it; every mistake in it is told at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from smlt.backends.channels.redis_address import addresses_of
from smlt.core.errors import ConfigError, Problem, nearest

PEERS = ("gloo", "lambdaml", "lambdaml-hiredis", "lambdaml-hscan", "redis-py")

ELEMENT_BYTES = 4
"""Vectors are float32, as gradients are."""

MOST_WORKERS = 64
MOST_MEGABYTES = 1e5

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """One cell of the table: how many ranks sum vectors of how many megabytes (of 1e6 bytes)."""

    workers: int
    megabytes: float

    @property
    def elements(self) -> int:
        """Of a vector, float32."""
        return max(1, int(self.megabytes * 1e6 / ELEMENT_BYTES))


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        channels: names as in `[sync].channel`, or reducing-tcp; None for all that can run here.
        peers: of `PEERS`; None for gloo, and lambdaml where there is a Redis.
        workers, megabytes: every pair of these is a setting.
        rounds: timed ones, each of every variant.
        redis_url: a server that runs; None for one of the run's own.
        redis_password_from: the environment variable that holds its password; None for none.
    """

    channels: tuple[str, ...] | None = None
    peers: tuple[str, ...] | None = None
    workers: tuple[int, ...] = (2, 4)
    megabytes: tuple[float, ...] = (1.0, 46.0)
    rounds: int = 15
    redis_url: str | None = None
    redis_password_from: str | None = None

    @property
    def settings(self) -> list[Setting]:
        """In the order in which they are measured."""
        return [Setting(workers, megabytes) for workers in self.workers for megabytes in self.megabytes]


def parse(
    offered: Sequence[str],
    *,
    channels: str | None = None,
    peers: str | None = None,
    workers: str = "2,4",
    megabytes: str = "1,46",
    rounds: str = "15",
    redis_url: str | None = None,
    redis_password_from: str | None = None,
) -> Request:
    """A request from lists separated by commas.

    Args:
        offered: the channels that there are.
        channels, peers, workers, megabytes, rounds: see `Request`; an empty list of peers is none at all.
        redis_url, redis_password_from: see `Request`.

    Raises:
        ConfigError: with every mistake.
    """
    problems: list[Problem] = []

    def read(flag: str, text: str, item: Callable[[str], T]) -> tuple[T, ...]:
        found: list[T] = []
        for word in filter(None, map(str.strip, text.split(","))):
            try:
                value = item(word)
                if value in found:
                    raise ConfigError(f"{word!r} is there twice", "name it once")
                found.append(value)
            except ConfigError as error:
                problems.append(Problem(flag, "", error.message, error.hint))
        return tuple(found)

    request = Request(
        None if channels is None else read("--channels", channels, lambda word: _name(word, "channel", offered)),
        None if peers is None else read("--peers", peers, lambda word: _name(word, "peer", PEERS)),
        read("--workers", workers, lambda word: _whole(word, 2, MOST_WORKERS)),
        read("--megabytes", megabytes, _size),
        next(iter(read("--rounds", rounds, lambda word: _whole(word, 1, 10**6))), 1),
        redis_url,
        redis_password_from,
    )
    try:
        if redis_url is not None:
            addresses_of(redis_url)
    except ConfigError as error:
        problems.append(Problem("--redis-url", "", error.message, error.hint))
    if redis_password_from is not None and redis_url is None:
        message, hint = "the run's own server has no password", "name the one that has with --redis-url"
        problems.append(Problem("--redis-password-from", "", message, hint))
    told = {problem.key for problem in problems}
    for flag, values in (("--workers", request.workers), ("--megabytes", request.megabytes)):
        if not values and flag not in told:
            problems.append(Problem(flag, "", "it is empty", "write numbers, separated by commas"))
    if not (request.channels or request.channels is None or request.peers or told):
        problems.append(Problem("--channels", "", "neither a channel nor a peer is left", "name one of them"))
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ConfigError(f"this cannot be measured:{lines}", problems=problems)
    return request


def _name(word: str, kind: str, known: Sequence[str]) -> str:
    if word not in known:
        raise ConfigError(f"no {kind} is called {word!r}", nearest(word, known))
    return word


def _whole(word: str, least: int, most: int) -> int:
    if not (word.isascii() and word.isdigit() and least <= int(word) <= most):
        raise ConfigError(f"{word!r} is not a whole number from {least} to {most}", "like 4")
    return int(word)


def _size(word: str) -> float:
    try:
        size = float(word)
    except ValueError:
        size = math.nan
    if not ELEMENT_BYTES / 1e6 <= size <= MOST_MEGABYTES:
        raise ConfigError(f"{word!r} is not a size in megabytes, up to {MOST_MEGABYTES:g}", "like 46 or 0.5")
    return size
