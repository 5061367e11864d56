"""`smlt bench sync`, again and again: a machine has good and bad minutes, so what counts is the median of several runs.

    python -m benchmarks.sync.sessions --sessions 5 --out sync.json      # adds five; with 0, only the table

Each session is added to the file as soon as it is over, with its date and load, so that one may go on at any time. The
table is over all sessions in the file, with what the project must reach and aims at, for 46 MB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from smlt.bench.measure import measure
from smlt.bench.plan import plan_for
from smlt.bench.request import parse
from smlt.bench.servers import offered_channels
from smlt.cli.tables import print_rows
from smlt.core.errors import SmltError
from smlt.core.plugins import load_registry

JUDGED_MB = 46

REDUCING: dict[int, tuple[float | None, float]] = {2: (1.8, 1.3), 4: (1.7, 1.1), 8: (1.6, 1.2)}
"""Of a run's own store, and of one over TCP."""

RATIOS: dict[str, dict[int, tuple[float | None, float]]] = {
    "shared_memory": {2: (0.6, 0.35), 4: (0.6, 0.3), 8: (0.8, 0.5)},
    "reducing": REDUCING,
    "reducing-tcp": REDUCING,
    "redis": {2: (2.5, 2.1), 4: (2.6, 2.0), 8: (2.8, 2.2)},
    "object": {2: (1.5, 1.2), 4: (1.6, 1.3), 8: (None, 1.4)},
}
"""Time by gloo's, at most: (must, aim) by channel and number of ranks."""

FACTORS: dict[tuple[str, str], dict[int, tuple[float | None, float | None]]] = {
    ("lambdaml", "redis"): {2: (6, 8), 4: (3.5, 5)},
    ("lambdaml", "reducing"): {4: (6, None)},
    ("lambdaml", "reducing-tcp"): {4: (6, None)},
    ("lambdaml-hiredis", "redis"): {},
    ("lambdaml-hscan", "redis"): {},
    ("redis-py", "redis"): {},
}
"""Time of the first by that of the second, on the same server, at least: (must, aim)."""

Line = tuple[str, int, float, list[float], float | None, float | None, bool]
"""What, ranks, megabytes, a value a session, must, aim, and whether more is better."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1, help="how many to add to the file")
    parser.add_argument("--out", type=Path, required=True, help="the file (JSON)")
    for flag, default in (
        ("workers", "2,4,8"),
        ("megabytes", "46"),
        ("rounds", "15"),
        ("peers", "gloo,lambdaml,lambdaml-hiredis,redis-py"),
    ):
        parser.add_argument(f"--{flag}", default=default, help=f"as in smlt bench sync; {default} unless given")
    parser.add_argument("--channels", help="as in smlt bench sync; all that can run here unless given")
    asked = vars(parser.parse_args())
    count, out = asked.pop("sessions"), asked.pop("out")
    sessions = read(out)
    registry = load_registry()
    offered = offered_channels(registry)
    try:
        request = parse(offered, **asked)
        plan = plan_for(request, offered)
        for number in range(count):
            print(f"session {number + 1} of {count}", file=sys.stderr)
            report = measure(request, plan, registry, say=lambda line: print(line, file=sys.stderr))
            sessions.append(report.document())
            write(out, sessions)
    except SmltError as error:
        sys.exit(f"error: {error}")
    print_rows(table(sessions), head=["what", "N", "MB", "median", "from", "to", "must", "aim", ""], right=range(1, 8))
    loads = ", ".join(f"{session['machine']['load_average'][0]:.1f}" for session in sessions)
    print(f"{len(sessions)} sessions; load average before each: {loads}")


def read(path: Path) -> list[dict[str, Any]]:
    """The sessions in a file; none if there is no such file."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["sessions"] if path.exists() else []
    return found


def write(path: Path, sessions: Sequence[dict[str, Any]]) -> None:
    """Replace the file, at once."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps({"sessions": sessions}, indent=1), encoding="utf-8")
    fresh.replace(path)


def table(sessions: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Medians over sessions, a row each."""
    return [_cells(line) for line in (*_ratios(sessions), *_factors(sessions))]


def _ratios(sessions: Sequence[dict[str, Any]]) -> Iterator[Line]:
    rows = [row for session in sessions for row in session["rows"] if row["ratio_to_gloo"] is not None]
    for variant, megabytes, workers in dict.fromkeys(map(_cell_of, sorted(rows, key=_order))):
        values = [row["ratio_to_gloo"] for row in rows if _cell_of(row) == (variant, megabytes, workers)]
        must, aim = RATIOS.get(variant, {}).get(workers, (None, None)) if megabytes == JUDGED_MB else (None, None)
        if variant != "gloo":
            yield f"{variant} / gloo", workers, megabytes, values, must, aim, False


def _factors(sessions: Sequence[dict[str, Any]]) -> Iterator[Line]:
    cells = [{_cell_of(row): row for row in session["rows"]} for session in sessions]
    settings = sorted({(megabytes, workers) for session in cells for _, megabytes, workers in session})
    for (slow, fast), targets in FACTORS.items():
        for key, name in (("median_ms", "time"), ("worker_cpu_ms", "workers' CPU")):
            for megabytes, workers in settings:
                pairs = [[found.get((name, megabytes, workers)) for name in (slow, fast)] for found in cells]
                values = [one[key] / other[key] for one, other in pairs if one and other]
                judged = key == "median_ms" and megabytes == JUDGED_MB
                must, aim = targets.get(workers, (None, None)) if judged else (None, None)
                if values:
                    yield f"{slow} / {fast}, {name}", workers, megabytes, values, must, aim, True


def _cell_of(row: dict[str, Any]) -> tuple[str, float, int]:
    return row["variant"], row["megabytes"], row["workers"]


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["kind"], row["variant"], row["megabytes"], row["workers"]


def _cells(line: Line) -> list[str]:
    what, workers, megabytes, values, must, aim, more = line
    median = statistics.median(values)

    def reached(target: float | None) -> bool:
        return target is not None and (median >= target if more else median <= target)

    if must is None and aim is None:
        verdict = ""
    elif reached(aim):
        verdict = "aim"
    else:
        verdict = "must" if reached(must) else "missed" if must is not None else "not yet"
    figures = [f"{value:.2f}" for value in (median, min(values), max(values))]
    targets = ["" if target is None else f"{target:g}" for target in (must, aim)]
    return [what, str(workers), f"{megabytes:g}", *figures, *targets, verdict]


if __name__ == "__main__":
    main()
