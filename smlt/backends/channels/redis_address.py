"""Where Redis servers are, as a channel's spec says it; passwords come from the environment, never from the spec."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from smlt.core.errors import ConfigError
from smlt.core.storage import ChannelSpec

DEFAULT_PORT = 6379
EXAMPLES = "write it like redis://host:6379, rediss://user@host:6380/0 or unix:///run/redis.sock"

PASSWORD_FROM = "password_from"
"""Option of the spec: the environment variable that holds the password, in every function."""

CA_PEM = "ca_pem"
"""Option of the spec: certificates (PEM) to trust for `rediss`, instead of the system's."""

NAMESPACE = "namespace"
"""Option of the spec: what all keys of the channel begin with."""

TTL_S = "ttl_s"
"""Option of the spec: the server forgets a value so many whole seconds after it was written."""

DEFAULT_TTL_S = 600


@dataclass(frozen=True)
class RedisAddress:
    """One server.

    Attributes:
        host, port: over TCP; `host` is empty for a Unix socket.
        path: of the Unix socket.
        tls: whether it speaks TLS.
        user: whose password it is; empty for the default user.
        database: its number.
    """

    host: str
    port: int
    path: str = ""
    tls: bool = False
    user: str = ""
    database: int = 0

    def __str__(self) -> str:
        return f"redis at {self.path or f'{self.host}:{self.port}'}"

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """The server of a URL; raises `ConfigError`, whose words repeat no password."""
        parts = urlsplit(url.strip())
        if parts.password is not None:
            raise ConfigError(
                f"the URL of {parts.hostname or parts.path} has a password in it, and would be kept with the run",
                "leave it out, put it into an environment variable, and say which that is",
            )
        try:
            port = parts.port or DEFAULT_PORT
            user, database = unquote(parts.username or ""), _database(parts)
        except ValueError as error:
            raise ConfigError(f"{url!r} is not the URL of a Redis server: {error}", EXAMPLES) from error
        if parts.scheme == "unix" and parts.path.startswith("/") and not parts.hostname:
            return cls("", 0, unquote(parts.path), False, user, database)
        if parts.scheme in ("redis", "rediss") and parts.hostname:
            return cls(parts.hostname, port, "", parts.scheme == "rediss", user, database)
        raise ConfigError(f"{url!r} is not the URL of a Redis server", EXAMPLES)


def addresses_of(urls: str) -> tuple[RedisAddress, ...]:
    """The servers of one or several comma-separated URLs."""
    return tuple(RedisAddress.parse(url) for url in urls.split(","))


def _database(parts: SplitResult) -> int:
    given = parse_qs(parts.query).get("db", [""])[0] if parts.scheme == "unix" else parts.path.strip("/")
    if given and not given.isdigit():
        raise ValueError(f"{given!r} is no number of a database")
    return int(given or 0)


@dataclass(frozen=True)
class RedisPlace:
    """All that a client needs to know.

    Attributes:
        addresses: the servers, of which a key's hash picks one.
        password: of all of them; empty for none. Not part of the text of this object.
        password_from: where it came from.
        ca_pem: see `CA_PEM`; empty for the system's.
        namespace, ttl_s: see the options of the same name.
    """

    addresses: tuple[RedisAddress, ...]
    password: str = field(repr=False)
    password_from: str
    ca_pem: str
    namespace: str
    ttl_s: int

    @classmethod
    def of(cls, spec: ChannelSpec, environment: Mapping[str, str] | None = None) -> RedisPlace:
        """What a spec says; raises `ConfigError` where it cannot be used, or the password is not there."""
        options = spec.options
        addresses = addresses_of(spec.url)
        name = options.get(PASSWORD_FROM, "")
        password = (os.environ if environment is None else environment).get(name, "") if name else ""
        if name and not password:
            raise ConfigError(f"no password for {addresses[0]}: {name} is not set", f"export {name}=…")
        ttl_s = options.get(TTL_S, DEFAULT_TTL_S)
        if type(ttl_s) is not int or ttl_s < 1:
            raise ConfigError(f"{TTL_S} of a redis channel is {ttl_s!r}", "give whole seconds, 1 at least")
        return cls(addresses, password, name, options.get(CA_PEM, ""), options.get(NAMESPACE, "smlt"), ttl_s)
