"""`smlt serve-channel`: the reducing store, to be run where all workers of a job can reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smlt.cli.options import Debug


def serve_channel(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 for any; or unix:PATH.")
    ] = "127.0.0.1:0",
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds the secret that clients must know too.")
    ] = None,
    idle: Annotated[
        str, typer.Option(metavar="DURATION", help="Stop when nobody has been connected for so long.")
    ] = "10m",
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Most memory for values and sums.")] = "1GiB",
    debug: Debug = False,
) -> None:
    """Serve a channel that adds gradients up itself; prints its address, and stops when idle."""
    from smlt.backends.channels.reducing_protocol import Address, read_token
    from smlt.backends.channels.reducing_server import ReducingServer, serve
    from smlt.backends.channels.reducing_store import Store
    from smlt.core.errors import ConfigError
    from smlt.core.units import parse_duration_s, parse_memory_mib

    try:
        idle_s, memory_mib = parse_duration_s(idle), parse_memory_mib(memory)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    token = read_token(token_file) if token_file else b""
    serve(ReducingServer(Address.parse(listen), Store(memory_mib << 20), token=token, idle_s=idle_s))
