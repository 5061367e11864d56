"""What of a request can be measured here, and what is left out."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from smlt.bench.redis_server import INSTALL, find_server
from smlt.bench.request import Request
from smlt.core.errors import ConfigError

OVER_REDIS = ("redis", "lambdaml", "lambdaml-hiredis", "lambdaml-hscan", "redis-py")
PACKAGES = {
    "gloo": (("torch",), "pip install 'smlt[torch]', or leave it out: --peers lambdaml"),
    "lambdaml": (("redis",), "pip install 'smlt[bench]'"),
    "lambdaml-hiredis": (("redis", "hiredis"), "pip install 'smlt[bench]'"),
    "lambdaml-hscan": (("redis",), "pip install 'smlt[bench]'"),
    "redis-py": (("redis", "hiredis"), "pip install 'smlt[bench]'"),
}
"""What a peer needs, and how to get it."""


@dataclass(frozen=True)
class LeftOut:
    """A channel or a peer that nobody asked for by name and that cannot run here, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        channels, peers: names.
        left_out: what is not, though it would be by default.
    """

    channels: tuple[str, ...]
    peers: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def variants(self) -> tuple[str, ...]:
        """In the order of their turns: gloo first."""
        return (*self.peers, *self.channels)

    @property
    def wants_redis(self) -> bool:
        """Whether a server is needed."""
        return any(name in OVER_REDIS for name in self.variants)


@dataclass(frozen=True)
class Machine:
    """What is installed here.

    Attributes:
        has_package: of a name.
        has_server: of Redis or Valkey.
    """

    has_package: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None
    has_server: Callable[[], bool] = field(default=lambda: find_server() is not None)


def plan_for(request: Request, offered: Sequence[str], machine: Machine | None = None) -> Plan:
    """What the request comes to on this machine; `offered` are the channels that there are.

    Raises:
        ConfigError: something that was asked for by name, or gloo, cannot run here.
    """
    machine = machine or Machine()
    redis_at_hand = bool(request.redis_url) or machine.has_server()
    left_out: list[LeftOut] = []

    def can_run(name: str, by_name: bool) -> bool:
        try:
            _check(name, machine, redis_at_hand)
        except ConfigError as error:
            if by_name or name == "gloo":
                raise
            left_out.append(LeftOut(name, f"{error.message} ({error.hint})"))
            return False
        return True

    def choose(named: Sequence[str] | None, default: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in (default if named is None else named) if can_run(name, named is not None))

    peers = choose(request.peers, ("gloo", "lambdaml"))
    return Plan(choose(request.channels, offered), peers, tuple(left_out))


def _check(name: str, machine: Machine, redis_at_hand: bool) -> None:
    """Raises ConfigError where a channel or a peer cannot run."""
    packages, hint = PACKAGES.get(name, ((), ""))
    missing = [package for package in packages if not machine.has_package(package)]
    if missing:
        raise ConfigError(f"{name} needs the package {' and '.join(missing)}, which is not installed", hint)
    if name in OVER_REDIS and not redis_at_hand:
        raise ConfigError(f"{name} needs a server, and there is none of Valkey or Redis here", INSTALL)
