"""What was measured, as rows: medians, ratios to gloo in the same run, processor time, requests and bytes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from smlt.bench.messages import Timing
from smlt.bench.plan import LeftOut
from smlt.bench.request import ELEMENT_BYTES, PEERS, Setting

SCHEMA_VERSION = 1
REFERENCE = "gloo"


@dataclass(frozen=True)
class Row:
    """One variant in one setting.

    Attributes:
        workers, megabytes: the setting; a megabyte is 1e6 bytes of float32.
        variant: a channel's or a peer's name; `kind` says which.
        rounds: how many were timed.
        median_ms, fastest_ms, slowest_ms: of a round, from the first rank's start to the last rank's end.
        ratio_to_gloo: of the medians; None where gloo was not measured.
        worker_cpu_ms: processor time of all ranks in a round, the median; a server's is not in it.
        worker_cpu_ns_per_byte: that, by the bytes of all ranks' vectors.
        requests_per_step, bytes_up_per_step, bytes_down_per_step: of all ranks together, means over the timed rounds;
            None where nobody counts.
    """

    workers: int
    megabytes: float
    variant: str
    kind: str
    rounds: int
    median_ms: float
    fastest_ms: float
    slowest_ms: float
    ratio_to_gloo: float | None
    worker_cpu_ms: float
    worker_cpu_ns_per_byte: float
    requests_per_step: dict[str, float] | None
    bytes_up_per_step: float | None
    bytes_down_per_step: float | None


@dataclass(frozen=True)
class Report:
    """A run: when and where it was, what was left out, and the rows."""

    date: str
    machine: Mapping[str, Any]
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As `-o json` prints it."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def rows_of(setting: Setting, rounds: Mapping[str, Sequence[Sequence[Timing]]]) -> list[Row]:
    """Rows from the timed rounds of each variant, each of them one timing a rank."""
    spans = {variant: [_span_s(timings) for timings in found] for variant, found in rounds.items()}
    reference = statistics.median(spans[REFERENCE]) if REFERENCE in spans else None
    return [_row(setting, variant, spans[variant], found, reference) for variant, found in rounds.items()]


def _span_s(timings: Sequence[Timing]) -> float:
    return max(timing.end_s for timing in timings) - min(timing.start_s for timing in timings)


def _row(
    setting: Setting, variant: str, spans: Sequence[float], rounds: Sequence[Sequence[Timing]], reference: float | None
) -> Row:
    median, count = statistics.median(spans), len(rounds)
    cpu = statistics.median(sum(timing.cpu_s for timing in timings) for timings in rounds)
    every = [timing for timings in rounds for timing in timings]
    requests: dict[str, float] | None = None
    if all(timing.requests is not None for timing in every):
        verbs = sorted({verb for timing in every for verb in timing.requests or {}})
        totals = {verb: sum((timing.requests or {}).get(verb, 0) for timing in every) for verb in verbs}
        requests = {verb: total / count for verb, total in totals.items()}
    counted = requests is not None
    return Row(
        workers=setting.workers,
        megabytes=setting.megabytes,
        variant=variant,
        kind="peer" if variant in PEERS else "channel",
        rounds=count,
        median_ms=median * 1e3,
        fastest_ms=min(spans) * 1e3,
        slowest_ms=max(spans) * 1e3,
        ratio_to_gloo=median / reference if reference else None,
        worker_cpu_ms=cpu * 1e3,
        worker_cpu_ns_per_byte=cpu * 1e9 / (setting.workers * setting.elements * ELEMENT_BYTES),
        requests_per_step=requests,
        bytes_up_per_step=sum(timing.bytes_up for timing in every) / count if counted else None,
        bytes_down_per_step=sum(timing.bytes_down for timing in every) / count if counted else None,
    )
