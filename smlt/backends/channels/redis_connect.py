"""Connecting to a Redis server, and what its refusals mean in words that help."""

from __future__ import annotations

import socket
import ssl

from smlt.backends.channels.redis_address import RedisAddress, RedisPlace
from smlt.backends.channels.redis_wire import TlsWire, Wire
from smlt.backends.channels.resp import RefusedError, Replies, command
from smlt.core.errors import ChannelError

CONNECT_S = 10.0
STALL_S = 30.0

KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, and a count: a machine that vanished is noticed within half a minute, though nothing is sent."""

HINTS = {
    "OOM": "its maxmemory is reached: give it more, or add another server to the URL",
    "NOAUTH": "it wants a password: say in which environment variable it is",
    "WRONGPASS": "check user and password",
    "NOPERM": "the user needs SET, GET, RPUSH, BLMOVE, EXPIRE, EXISTS and UNLINK on the keys of smlt",
    "READONLY": "it is a replica: name the primary",
    "MISCONF": "it cannot save to its disk; smlt needs no persistence there",
    "LOADING": "it is still loading its data: try again",
    "MASTERDOWN": "name the primary",
    "MOVED": "cluster mode is not supported: name a server, or an endpoint, without it",
    "CLUSTERDOWN": "cluster mode is not supported: name a server, or an endpoint, without it",
    "CROSSSLOT": "cluster mode is not supported: name a server, or an endpoint, without it",
    "WRONGTYPE": "something else uses this key: take another database or another name for the run",
    "DENIED": "it is in protected mode: give it a password",
    "ERR unknown command": "Redis 6.2, Valkey, or newer is needed",
    "ERR AUTH": "it has no password: name no environment variable for one",
    "ERR Client sent AUTH": "it has no password: name no environment variable for one",
    "ERR Protocol error: invalid bulk length": "the value is larger than its proto-max-bulk-len",
    "ERR max number of clients": "raise its maxclients: each worker has two connections",
    "ERR DB index": "it has no database of this number",
}


def refusal(server: str, what: str, said: str) -> ChannelError:
    """The error for a server that refused `what`, with its own words."""
    hint = next((hint for start, hint in HINTS.items() if said.startswith(start)), "")
    return ChannelError(f"{server} refused {what}: {said}", hint)


def connect(place: RedisPlace, address: RedisAddress) -> Wire:
    """A connection that is logged in and has answered once; raises `ChannelError`."""
    connection = _dial(address)
    try:
        wire = _secured(connection, place, address) if address.tls else Wire(connection, str(address), STALL_S)
        _log_in(wire, place, address)
    except BaseException:
        connection.close()
        raise
    return wire


def _dial(address: RedisAddress) -> socket.socket:
    try:
        if address.path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(CONNECT_S)
                connection.connect(address.path)
            except BaseException:
                connection.close()
                raise
            return connection
        connection = socket.create_connection((address.host, address.port), CONNECT_S)
    except OSError as error:
        reason = f"no answer within {CONNECT_S:g} s" if isinstance(error, TimeoutError) else error.strerror or error
        raise ChannelError(
            f"cannot reach {address}: {reason}", "does the server run there, and may this machine reach it?"
        ) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _secured(connection: socket.socket, place: RedisPlace, address: RedisAddress) -> Wire:
    try:
        context = ssl.create_default_context(cadata=place.ca_pem or None)
        secured = context.wrap_socket(connection, server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        raise ChannelError(
            f"{address} shows a certificate that is not trusted: {error.verify_message}",
            "is it the right host? for a private authority, give its certificate",
        ) from error
    except OSError as error:  # an ssl.SSLError is one too
        raise ChannelError(
            f"{address} speaks no TLS: {error.strerror or error}",
            "for a server without it write redis://, not rediss://",
        ) from error
    return TlsWire(secured, str(address), STALL_S)


def _log_in(wire: Wire, place: RedisPlace, address: RedisAddress) -> None:
    steps: list[tuple[bytes, ...]] = [(b"PING",)]
    if address.database:
        steps.insert(0, (b"SELECT", b"%d" % address.database))
    if place.password:
        who = [part.encode() for part in (address.user, place.password) if part]
        steps.insert(0, (b"AUTH", *who))
    wire.send([command(*step) for step in steps])
    replies = Replies(wire)
    for step in steps:
        try:
            replies.value()
        except RefusedError as error:
            raise wire.fail(refusal(wire.name, step[0].decode(), str(error))) from error
