"""Local SGD against exact data parallelism on the GPT example: bytes for equal examples, and validation loss.

    python -m benchmarks.step.diloco [--steps 600] [--seeds 0,1,2] [--out FILE.json]

For each seed two whole runs of examples/gpt with 2 workers: exact, and local SGD with period 50 and int8. Bytes are
what rank 0's channel sent and received, from the run's log; those of the first outer step are left out. With --out,
runs that are in the file are not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import smlt

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpt"
PERIOD = 50
MODES: dict[str, dict[str, object]] = {
    "exact": {},
    "local_sgd": {"sync.mode": "local_sgd", "sync.period": PERIOD, "sync.codec": "int8"},
}


def measure(mode: str, seed: int, steps: int) -> dict[str, object]:
    """One run's validation loss, and bytes a step once it is under way."""
    with tempfile.TemporaryDirectory() as folder:
        result = smlt.train(
            f"{EXAMPLE / 'task.py'}:Gpt",
            config=EXAMPLE / "smlt.toml",
            workers=2,
            steps=steps,
            seed=seed,
            runs_dir=folder,
            settings={"sync.channel": "object", **MODES[mode]},  # one that moves no more than it must
        )
        events = (Path(result.model_path).parent / "events.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for event in map(json.loads, events) if event["kind"] == "steps" for record in event["items"]]
    moved = [record["sent_bytes"] + record["received_bytes"] for record in records if record["step"] >= PERIOD]
    return {
        "mode": mode,
        "seed": seed,
        "steps": steps,
        "val_loss": result.metrics["val_loss"],
        "bytes_a_step": sum(moved) / len(moved),
        "wall_seconds": result.summary.wall_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="steps of each run; a multiple of 50")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, help="keep results here, and go on from what is here")
    arguments = parser.parse_args()
    rows = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else []
    for seed in map(int, arguments.seeds.split(",")):
        for mode in MODES:
            if any((row["mode"], row["seed"], row["steps"]) == (mode, seed, arguments.steps) for row in rows):
                continue
            rows.append(measure(mode, seed, arguments.steps))
            print(json.dumps(rows[-1]), flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(rows, indent=2))
    by_mode = {mode: [row for row in rows if row["mode"] == mode] for mode in MODES}
    loss = {mode: statistics.mean(row["val_loss"] for row in found) for mode, found in by_mode.items()}
    moved = {mode: statistics.mean(row["bytes_a_step"] for row in found) for mode, found in by_mode.items()}
    print(f"payload: 1/{moved['exact'] / moved['local_sgd']:.0f} of exact data parallelism's")
    ratio = loss["local_sgd"] / loss["exact"]
    print(f"mean validation loss: {loss['local_sgd']:.4f}, exact {loss['exact']:.4f}, ratio {ratio:.4f}")


if __name__ == "__main__":
    main()
