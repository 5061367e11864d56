"""What a controller that takes over from one that is gone may go on with: the round that is open, and who is in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

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

NOTHING = (-1, -1)
"""Before the first step of the first round."""


@dataclass(frozen=True)
class Adoption:
    """What there is to go on with.

    Attributes:
        adopted: for the controller's machine.
        told: round and number of the generation's newest step in the log; who told it may tell it again.
        paid_until: until then (Unix time) the log has what the functions cost.
        memory_mib, lease_s: of each function that may be there, its size, and for how long it runs on by itself.
    """

    adopted: Adopted
    told: tuple[int, int]
    paid_until: float
    memory_mib: Mapping[Address, int]
    lease_s: Mapping[Address, float]


def adoptable(run: OpenRun, opened: Round, wish: str, now: float) -> Adoption | None:
    """The round as a controller goes on with it; None where its functions were told something else than now is wanted.

    Args:
        run: the open run, and what is wanted of it now.
        opened: the round that is open by the control record.
        wish: that stands.
        now: by the clock of the controller's events.
    """
    session = last_session(run.store, wire.read(run.store, layout.RECORD, RunRecord))
    events = [event for _, event in read_events(run.store)]
    version = next((event.data.get("smlt") for event in reversed(events) if event.kind == "created"), "")
    same_code = run.parcel.bundle and session.code.get("sha256") == run.parcel.sha256
    if _as_told(session.job, run) != _as_told(run.spec, run) or not same_code or version != __version__:
        return None
    ranks = len(opened.members)
    launched = _launched(events, opened.generation)
    ready = [event.data for event in events if event.kind == "ready" and event.data["generation"] == opened.generation]
    newest = [max((each.incarnation for each in launched if each.rank == rank), default=-1) for rank in range(ranks)]
    if min(newest) < 0 or not ready:
        return None  # it had hardly begun
    if any("lease_s" not in event.data for event in launched.values()):
        return None  # an older smlt did not note for how long money is committed to them
    gone = {_address(event) for event in events if event.kind == "lost"}
    found = taking_part(opened, newest, gone, lambda address: _claimed_by(run.store, address))
    lost = tuple(rank for rank, number in enumerate(found) if number is None)
    if len(lost) == ranks:
        return None
    incarnations = tuple(newest[rank] if number is None else number for rank, number in enumerate(found))
    addresses = [Address(opened.generation, rank, number) for rank, number in enumerate(incarnations)]
    age_s = time.time() - now
    adopted = Adopted(
        round=opened,
        wish=wish,
        incarnations=incarnations,
        newest=tuple(newest),
        launched_at=tuple(launched[address].time - age_s for address in addresses),
        memory_mib=tuple(launched[address].data["memory_mib"] for address in addresses),
        lost=lost,
        total_steps=ready[-1]["total_steps"],
        eval_examples=ready[-1]["eval_examples"],
    )
    told = [
        (event.data["items"][-1]["round"], event.data["items"][-1]["step"])
        for event in events
        if event.kind == "steps" and event.data["generation"] == opened.generation
    ]
    paid = [event.time for event in events if event.kind == "spent"]
    sizes = {address: event.data["memory_mib"] for address, event in launched.items()}
    leases_s = {address: event.data["lease_s"] for address, event in launched.items()}
    return Adoption(adopted, told[-1] if told else NOTHING, paid[-1] if paid else time.time(), sizes, leases_s)


def taking_part(
    opened: Round, newest: Sequence[int], gone: Container[Address], claimed_by: Callable[[Address], str]
) -> list[int | None]:
    """By rank, the incarnation that takes part in a round; None where that is lost, or there never was one.

    Args:
        opened: the round.
        newest: by rank, the newest incarnation that was launched, perhaps to take over from the one that works.
        gone: who is known to be lost.
        claimed_by: the uuid of the process that is an incarnation.
    """
    found: list[int | None] = []
    for rank, uuid in enumerate(opened.members):
        tried = (Address(opened.generation, rank, number) for number in range(newest[rank], -1, -1))
        member = next((address for address in tried if claimed_by(address) == uuid), None)
        found.append(member.incarnation if member and member not in gone else None)
    return found


def _as_told(job: JobSpec, run: OpenRun) -> JobSpec:
    """What the functions know of a job: limits are the controller's business, and a name may have been generated."""
    named = job.job.model_copy(update={"name": run.name})
    return job.model_copy(update={"job": named, "limits": run.spec.limits})


def _launched(events: list[RunEvent], generation: int) -> dict[Address, RunEvent]:
    """What was noted last when a function of a generation was launched."""
    return {
        _address(event): event
        for event in events
        if event.kind == "launched" and event.data["generation"] == generation
    }


def _address(event: RunEvent) -> Address:
    return Address(event.data["generation"], event.data["rank"], event.data["incarnation"])


def _claimed_by(store: ObjectStore, address: Address) -> str:
    try:
        return store.get(layout.claim(address.generation, address.rank, address.incarnation)).decode()
    except NotFound:
        return ""
