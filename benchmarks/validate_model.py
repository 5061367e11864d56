"""The analytic model beside published measurements: fitted on a few worker counts, predicting the others.

    python benchmarks/validate_model.py --series siren.resnet18 --workers 10,50,100,150,200 -o json

All series go the same way: a pattern in the model's terms, priors from the catalog and the literature, published times
at the calibrated counts as observations, and one prediction for every count that is asked for. Series that were
measured on one platform, as Siren's were, are fitted together unless `--alone` is given. What of the measurements is
sound is said in published.toml.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from smlt.cli.tables import print_json, print_rows
from smlt.core.catalog import load_catalog
from smlt.core.errors import SmltError, nearest
from smlt.core.storage import ChannelCapabilities
from smlt.planners import analytic
from smlt.planners.constants import Constant, Values
from smlt.planners.fit import Fitted, Model, Prediction, Seen, fit
from smlt.planners.transfer import Stage, merged, store_constants

PUBLISHED = Path(__file__).with_name("published.toml")
Parts = dict[str, Model]
"""What one number of workers is predicted to take, by the name of its part in published.toml."""


def siren(gradient_mb: float, workers: int) -> Parts:
    """Each worker puts its whole gradient and gets those of all, one after another."""
    size = gradient_mb * 1e6
    return {
        "upload": Stage(1, 0, size, 0, workers, packed_bytes=size).seconds,
        "download": Stage(0, workers, 0, workers * size, workers).seconds,
    }


def smlt_redis(gradient_mb: float, workers: int) -> Parts:
    """SMLT's prototype: n shards a worker through Redis, one key after another; the last step has a single reader."""
    size = gradient_mb * 1e6
    return {
        "upload_shard": Stage(workers, 0, size, 0, workers, packed_bytes=size).seconds,
        "download_shard": Stage(0, workers, 0, size, workers).seconds,
        "upload_aggregate": Stage(1, 0, size / workers, 0, workers).seconds,
        "download_gradient": Stage(0, workers, 0, size, 1).seconds,
    }


def start(workers: int) -> Parts:
    """Functions that are called one after the other."""
    return {"start": partial(analytic.start_s, workers)}


EXAMPLES = 1024
"""Of a global batch, nominal: only its quotient with the speed matters, and the speed is learned."""


def computing(workers: int) -> Parts:
    """The published iterations have one global batch, whatever the number of workers."""
    work = analytic.Workload(1, EXAMPLES, 0.0, ())
    fleet = analytic.Fleet(workers, 0, 1.0, ChannelCapabilities(False, False, None, 0.0))
    return {"compute": lambda values: analytic.compute_s(work, fleet, values)}


def iteration(exchange: Callable[[int], Parts], workers: int) -> Parts:
    """Computing, then an exchange."""
    return {**computing(workers), **exchange(workers)}


SERIAL_REDIS = "spcl/fmi config/fmi.json, 2023: redis-py"
REDIS: Mapping[str, Constant] = {
    "put_latency_s": Constant(0.0052, 3.0, f"{SERIAL_REDIS}, overhead of a request 5.2 ms"),
    "get_latency_s": Constant(0.0052, 3.0, f"{SERIAL_REDIS}, overhead of a request 5.2 ms"),
    "up_mb_s": Constant(100.0, 3.0, f"{SERIAL_REDIS}, 100 MB/s of a single connection"),
    "down_mb_s": Constant(100.0, 3.0, f"{SERIAL_REDIS}, 100 MB/s of a single connection"),
    "store_mb_s": Constant(1600.0, 4.0, f"{SERIAL_REDIS}, 400 MB/s in total of a host, times 4: SMLT had 3 to 5"),
}
PICKLING = {"pack_s_per_mb": Constant(0.004, 3.0, "a guess: pickle and copies at 250 MB/s")}


@dataclass(frozen=True)
class Series:
    """A published series.

    Attributes:
        table: in published.toml.
        pattern: the parts, from the number of workers.
        calibrated: worker counts that the model is fitted on.
        columns: of the table, by part; or one for "total".
        scale: seconds of a column's unit.
        priors: that replace those of S3 on AWS Lambda.
        also: other series of the same platform, whose calibrated counts are observed too.
    """

    table: str
    pattern: Callable[[int], Parts]
    calibrated: tuple[int, ...]
    columns: Mapping[str, str]
    scale: float = 1.0
    priors: Mapping[str, Constant] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    def published(self) -> dict[int, dict[str, float]]:
        """Seconds by number of workers and part."""
        table: Any = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))
        for name in self.table.split("."):
            table = table[name]
        return {
            workers: {part: table[column][number] * self.scale for part, column in self.columns.items()}
            for number, workers in enumerate(table["workers"])
        }

    def model(self, workers: int, part: str) -> Model:
        """Of one part, or of the "total"."""
        parts = self.pattern(workers)
        return (lambda values: _total(parts, values)) if part == "total" else parts[part]


def _total(parts: Parts, values: Values) -> float:
    return sum(model(values) for model in parts.values())


REDIS_STEPS = {
    part: f"{part}_ms" for part in ("upload_shard", "download_shard", "upload_aggregate", "download_gradient")
}
COMMUNICATION = {"total": "communication_s"}
UP_AND_DOWN = {"upload": "upload_s", "download": "download_s"}
SIREN = ("siren.resnet18", "siren.resnet50")


def _iteration(model: str, system: str, exchange: Callable[[int], Parts], **options: Any) -> Series:
    """Whole iterations: the exchange is fitted on its own series, computing on one published point."""
    return Series(f"iteration.{model}", partial(iteration, exchange), (50,), {"total": f"{system}_s"}, **options)


SERIES: Mapping[str, Series] = {
    "siren.resnet18": Series("siren.resnet18", partial(siren, 47), (10, 50), COMMUNICATION, also=SIREN[1:]),
    "siren.resnet50": Series("siren.resnet50", partial(siren, 102), (10, 50), UP_AND_DOWN, also=SIREN[:1]),
    "smlt.resnet18": Series("smlt.resnet18", partial(smlt_redis, 47), (10, 50), COMMUNICATION, priors=REDIS),
    "smlt.resnet50": Series("smlt.resnet50", partial(smlt_redis, 102), (10, 50), REDIS_STEPS, 1e-3, REDIS),
    # The published sizes of BERT models are not sound; this is BERT-medium's, 41 million parameters (Turc et al. 2019).
    "smlt.bert_medium": Series("smlt.bert_medium", partial(smlt_redis, 165), (10, 40, 60), REDIS_STEPS, 1e-3, REDIS),
    "iteration.resnet18.siren": _iteration("resnet18", "siren", partial(siren, 47), also=SIREN),
    "iteration.resnet50.siren": _iteration("resnet50", "siren", partial(siren, 102), also=SIREN),
    "iteration.resnet18.smlt": _iteration(
        "resnet18", "smlt", partial(smlt_redis, 47), priors=REDIS, also=("smlt.resnet18",)
    ),
    "iteration.resnet50.smlt": _iteration(
        "resnet50", "smlt", partial(smlt_redis, 102), priors=REDIS, also=("smlt.resnet50",)
    ),
    "startup.from_vm": Series("startup", start, (10, 40), {"start": "from_vm_s"}),
    "startup.from_laptop": Series("startup", start, (10, 40), {"start": "from_laptop_s"}),
    "startup.from_step_functions": Series("startup", start, (10, 40), {"start": "from_step_functions_s"}),
}
SHORT = {"startup": "startup.from_vm", "smlt.bert": "smlt.bert_medium"}
"""Other names."""


def fitted(series: Series, calibrated: tuple[int, ...], *, alone: bool = False) -> Fitted:
    """The model's constants, from the published times at the calibrated counts, and those of the same platform."""
    store = store_constants(load_catalog("smlt.backends.aws"), "s3", "lambda_x86")
    others = () if alone else tuple(SERIES[name] for name in series.also)
    seen = [*_seen(series, calibrated), *(each for other in others for each in _seen(other, other.calibrated))]
    return fit(merged(analytic.COMPUTE_PRIORS, store, PICKLING, series.priors), seen)


def _seen(series: Series, calibrated: tuple[int, ...]) -> list[Seen]:
    published = series.published()
    return [
        Seen(series.model(workers, part), seconds)
        for workers in calibrated
        for part, seconds in published[workers].items()
    ]


def validate(
    name: str, workers: tuple[int, ...] | None = None, calibrated: tuple[int, ...] | None = None, *, alone: bool = False
) -> dict[str, Any]:
    """Predictions of a series beside what was published."""
    series = SERIES[name]
    published, fits = series.published(), calibrated or series.calibrated
    learned = fitted(series, fits, alone=alone)
    predictions = [
        _row(series, learned, count, published.get(count), count in fits) for count in workers or tuple(published)
    ]
    errors = [abs(row["error"]) for row in predictions if row["error"] is not None and not row["calibrated"]]
    return {
        "series": name,
        "calibrated_on": list(fits),
        "fitted_with": {} if alone else {other: list(SERIES[other].calibrated) for other in series.also},
        "predictions": predictions,
        "median_error": statistics.median(errors) if errors else None,
        "worst_error": max(errors) if errors else None,
        "constants": [
            {"name": key, "value": each.value, "spread": each.spread, "source": each.source}
            for key, each in learned.constants.items()
        ],
    }


def _row(
    series: Series, learned: Fitted, workers: int, published: Mapping[str, float] | None, calibrated: bool
) -> dict[str, Any]:
    total = learned.predict(series.model(workers, "total"))
    parts: dict[str, Prediction] = {part: learned.predict(model) for part, model in series.pattern(workers).items()}
    seconds = None if published is None else sum(published.values())
    return {
        "workers": workers,
        "predicted_s": total.likely,
        "low_s": total.low,
        "high_s": total.high,
        "published_s": seconds,
        "error": None if seconds is None else total.likely / seconds - 1,
        "calibrated": calibrated,
        "parts": {
            part: {"predicted_s": each.likely, "published_s": (published or {}).get(part)}
            for part, each in parts.items()
        },
    }


def _print(document: Mapping[str, Any]) -> None:
    together = "".join(f", and {other} on {_said(counts)}" for other, counts in document["fitted_with"].items())
    print(f"{document['series']}, fitted on {_said(document['calibrated_on'])} workers{together}")
    rows = [
        [
            str(row["workers"]),
            f"{row['predicted_s']:.3f}",
            f"{row['low_s']:.3f} to {row['high_s']:.3f}",
            "" if row["published_s"] is None else f"{row['published_s']:.3f}",
            "" if row["error"] is None else f"{row['error']:+.1%}",
            "fitted" if row["calibrated"] else "",
        ]
        for row in document["predictions"]
    ]
    print_rows(rows, head=["workers", "predicted s", "two in three", "published s", "error", ""], right=[0, 1, 3, 4])
    if document["worst_error"] is not None:
        print(f"not fitted: median {document['median_error']:.1%}, worst {document['worst_error']:.1%}")


def _said(counts: list[int]) -> str:
    return ", ".join(map(str, counts))


def counts_of(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"not numbers of workers: {text!r}; write them like 10,50,100")
    return counts


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="validate_model", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", required=True, help=", ".join([*SERIES, *SHORT]))
    parser.add_argument(
        "--workers", type=counts_of, metavar="N,…", help="published or not; default: the published ones"
    )
    parser.add_argument(
        "--calibrate", type=counts_of, metavar="N,…", help="published counts that the model is fitted on"
    )
    parser.add_argument("--alone", action="store_true", help="not together with other series of the same platform")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    asked = parser.parse_args()
    name = SHORT.get(asked.series, asked.series)
    if name not in SERIES:
        parser.error(f"no series is called {asked.series!r}; {nearest(asked.series, [*SERIES, *SHORT])}")
    unpublished = set(asked.calibrate or ()) - set(SERIES[name].published())
    if unpublished:
        parser.error(f"--calibrate: {name} has nothing at {', '.join(map(str, sorted(unpublished)))} workers")
    try:
        document = validate(name, asked.workers, asked.calibrate, alone=asked.alone)
    except SmltError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if asked.output == "json":
        print_json(document)
    else:
        _print(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
