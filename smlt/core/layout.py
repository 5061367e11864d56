"""Where things lie in a run's object store: every key of a run is spelled here and nowhere else."""

from __future__ import annotations

RECORD = "run"
POINTER = "store"
"""In the folder of a run that is kept elsewhere: where."""
CONTROL = "control"
CODE = "code.zip"
PREPARED = "data/prepared.safetensors"
MODEL = "model.safetensors"
BEST_MODEL = "best.safetensors"
BEST = "best/"
SUMMARY = "summary.json"
EVENTS = "events.jsonl"
CATALOG = "catalog.json"
LOG = "log/"
ORDERS = "orders/"
CHECKPOINTS = "checkpoints/"
MAIL = "mail/"
CHAOS = "chaos/"
MANIFEST = "manifest"


def log_segment(number: int) -> str:
    """Segment `number` of the run log, from 0."""
    return f"{LOG}{number:08d}"


def claim(generation: int, rank: int, incarnation: int) -> str:
    """What the one process that may be this incarnation of a rank creates."""
    return f"claims/{generation}/{rank}/{incarnation}"


def mail(generation: int, rank: int, incarnation: int, number: int) -> str:
    """Message `number` from a worker to the controller, from 0."""
    return f"{mails(generation, rank, incarnation)}{number:08d}"


def mails(generation: int, rank: int, incarnation: int) -> str:
    """Folder of the messages from a worker to the controller."""
    return f"{MAIL}{generation}/{rank}/{incarnation}/"


def fault(number: int, rank: int) -> str:
    """Says that rule `number` of the run's chaos has taken effect on this rank; -1 for the controller."""
    return f"{CHAOS}{number}/{rank}"


def order(number: int) -> str:
    """Order `number` from a user to the controller, from 0."""
    return f"{ORDERS}{number:08d}"


def checkpoint(step: int) -> str:
    """Folder of the checkpoint at the start of `step`."""
    return f"{CHECKPOINTS}{step:09d}/"


def manifest(step: int) -> str:
    """The manifest that makes the checkpoint at `step` valid."""
    return checkpoint(step) + MANIFEST


def best(step: int) -> str:
    """The model after `step` steps, if it was the best one so far."""
    return f"{BEST}{step:09d}.safetensors"


def step_of(key: str) -> int:
    """The step of the checkpoint to which an object belongs, or of a best model."""
    return int(key.split("/")[1].partition(".")[0])


def attempt(step: int, generation: int, round_number: int) -> str:
    """Folder of what one round writes of the checkpoint at `step`: a dead round's parts are never a living one's."""
    return f"{checkpoint(step)}{generation}.{round_number}/"


def part(folder: str, rank: int) -> str:
    """One rank's share of the SHARED state, in the folder of an attempt."""
    return f"{folder}part-{rank:05d}.safetensors"


def private_part(folder: str, rank: int) -> str:
    """One rank's PRIVATE state, in the folder of an attempt."""
    return f"{folder}private-{rank:05d}.safetensors"


def written(folder: str, rank: int) -> str:
    """What one rank says that it has written, in the folder of an attempt."""
    return f"{folder}written-{rank:05d}"
