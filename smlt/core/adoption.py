"""What a controller that takes over from one that is gone may go on with: the round that is open, and who is in it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from smlt._version import __version__
from smlt.core import layout, wire
from smlt.core.errors import NotFound
from smlt.core.job import JobSpec
from smlt.core.messages import Round, RunRecord
from smlt.core.run_events import Address, Adopted
from smlt.core.runlog import RunEvent, read_events
from smlt.core.runs import OpenRun
from smlt.core.sessions import last_session
from smlt.core.storage import ObjectStore


@dataclass(frozen=True)
class Adoption:
    """What there is to go on with.

    Attributes:
        adopted: for the controller's machine.
        lease_s: by rank, for which its function runs on without a controller.
        told_until: the newest step in the log was committed then (Unix time); who told it may tell it again.
        paid_until: until then (Unix time) the log has what the functions cost.
    """

    adopted: Adopted
    lease_s: tuple[float, ...]
    told_until: float
    paid_until: float


def adoptable(run: OpenRun, opened: Round, wish: str, now: float) -> Adoption | None:
    """The round as a controller goes on with it; None where its functions were told something else than now is wanted.

    Args:
        run: the open run, and what is wanted of it now.
        opened: the round that is open by the control record.
        wish: that stands.
        now: by the clock of the controller's events.
    """
    session = last_session(run.store, wire.unpack(run.store.get(layout.RECORD), RunRecord))
    events = [event for _, event in read_events(run.store)]
    version = next((event.data.get("smlt") for event in reversed(events) if event.kind == "created"), "")
    same_code = run.parcel.bundle and session.code.get("sha256") == run.parcel.sha256
    if _as_told(session.job, run) != _as_told(run.spec, run) or not same_code or version != __version__:
        return None
    launched = _launched(events, opened.generation)
    ready = [event.data for event in events if event.kind == "ready" and event.data["generation"] == opened.generation]
    if len(launched) != len(opened.members) or not ready:
        return None  # it had hardly begun
    if any("lease_s" not in data for data, _ in launched.values()):
        return None  # an older smlt did not note for how long money is committed to them
    addresses = [Address(opened.generation, rank, data["incarnation"]) for rank, (data, _) in sorted(launched.items())]
    claims = [_claimed_by(run.store, address) for address in addresses]
    lost = tuple(rank for rank, uuid in enumerate(claims) if uuid != opened.members[rank])
    if len(lost) == len(addresses):
        return None
    age_s = time.time() - now
    adopted = Adopted(
        round=opened,
        wish=wish,
        incarnations=tuple(address.incarnation for address in addresses),
        launched_at=tuple(at - age_s for _, (_, at) in sorted(launched.items())),
        memory_mib=tuple(data["memory_mib"] for _, (data, _) in sorted(launched.items())),
        lost=lost,
        total_steps=ready[-1]["total_steps"],
        eval_examples=ready[-1]["eval_examples"],
    )
    told = [event.data["items"][-1]["ended"] for event in events if event.kind == "steps"]
    paid = [event.time for event in events if event.kind == "spent"]
    leases_s = tuple(data["lease_s"] for _, (data, _) in sorted(launched.items()))
    return Adoption(adopted, leases_s, told[-1] if told else 0.0, paid[-1] if paid else time.time())


def _as_told(job: JobSpec, run: OpenRun) -> JobSpec:
    """What the functions know of a job: limits are the controller's business, and a name may have been generated."""
    named = job.job.model_copy(update={"name": run.name})
    return job.model_copy(update={"job": named, "limits": run.spec.limits})


def _launched(events: list[RunEvent], generation: int) -> dict[int, tuple[dict[str, Any], float]]:
    """By rank of a generation, what was noted when its newest incarnation was launched, and when (Unix time)."""
    return {
        event.data["rank"]: (event.data, event.time)
        for event in events
        if event.kind == "launched" and event.data["generation"] == generation
    }


def _claimed_by(store: ObjectStore, address: Address) -> str:
    try:
        return store.get(layout.claim(address.generation, address.rank, address.incarnation)).decode()
    except NotFound:
        return ""
