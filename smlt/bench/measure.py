"""The measurement: variants in turn, round by round, in one group of processes, so that all meet the same machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from smlt._version import __version__
from smlt.bench.messages import Seating, Timing, Turn
from smlt.bench.plan import Plan
from smlt.bench.report import Report, Row, rows_of
from smlt.bench.request import Request, Setting
from smlt.bench.servers import Served, serving
from smlt.bench.team import Team, seated
from smlt.core.plugins import Registry

WARM_UPS = 2
"""Rounds before the timed ones, whose sums are checked; two, since some collectives use two memories in turn."""

PACKAGES = ("numpy", "torch", "redis", "hiredis")


def measure(
    request: Request,
    plan: Plan,
    registry: Registry,
    say: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Measure every setting; tells of each with `say` when its ranks are there.

    Raises:
        SmltError: a rank failed or died, a sum was wrong, a server cannot be reached, or there is no room.
    """
    date = datetime.fromtimestamp(clock(), UTC).isoformat(timespec="seconds")
    machine = _machine()
    rows: list[Row] = []
    notes: dict[str, None] = {}
    for setting in request.settings:
        with serving(request, plan, setting, registry) as served:
            notes.update(dict.fromkeys(filter(None, [served.note])))
            machine["redis_server"] = served.redis_server
            with seated(list(_seatings(plan, setting, served)), served.folder) as team:
                say(f"{setting.workers} ranks, {setting.megabytes:g} MB: {', '.join(plan.variants)}")
                rows += rows_of(setting, _rounds(team, plan, request.rounds))
    return Report(date, machine, tuple(rows), plan.left_out, tuple(notes))


def _seatings(plan: Plan, setting: Setting, served: Served) -> Iterator[Seating]:
    meeting = str(served.folder / "gloo")
    for rank in range(setting.workers):
        yield Seating(rank, setting.workers, setting.elements, served.channels, plan.peers, meeting, served.redis)


def _rounds(team: Team, plan: Plan, rounds: int) -> dict[str, list[list[Timing]]]:
    """The timings of each variant's timed rounds."""
    found: dict[str, list[list[Timing]]] = {variant: [] for variant in plan.variants}
    for step in range(WARM_UPS + rounds):
        for variant in plan.variants:
            timings = team.reduce(Turn(variant, step, check=step < WARM_UPS))
            if step >= WARM_UPS:
                found[variant].append(timings)
    return found


def _machine() -> dict[str, Any]:
    """Where this is: what a reader of figures wants to know."""
    from smlt.backends.local.backend import cores

    return {
        "cores": cores(),
        "load_average": list(os.getloadavg()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "smlt": __version__,
        "redis_server": None,
        **{package: _version_of(package) for package in PACKAGES},
    }


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
