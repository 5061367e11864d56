"""A comparison as a table and as a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from smlt.cli.plans import COUNTED, LEFT_OUT, SPEEDS, age_mark, price_document, price_words, shown_range, usd_of
from smlt.cli.sizes import age_words
from smlt.core.units import format_duration
from smlt.planners.comparison import Comparison, Verdict, outcome
from smlt.report.bars import Bar

if TYPE_CHECKING:
    from smlt.core.planning import Planned
    from smlt.planners.contenders import Contender

BASES = {
    None: "each one's own best fleet for the same limits; like with like: --equal vcpu, memory or usd",
    "vcpu": "equal vCPUs in all",
    "memory": "equal memory in all",
    "usd": "equal money for the whole job, spent as quickly as possible",
}

BARS = (
    "in brackets two cases of three, by how sure the price lists are of speeds and prices; what is not known of the "
    "task itself moves all alike and is left out. A tie: brackets overlap"
)

SPOT = "spot machines may be taken away: what that costs is not counted"
GPU = "a GPU's speed is a guess, within 3 times"


def document_of(comparison: Comparison, planned: Sequence[Planned], age_s: float | None) -> dict[str, Any]:
    """What `smlt compare -o json` prints: money in US dollars, times in seconds, memory in MiB."""
    return {
        "equal": comparison.basis,
        "basis": basis_of(comparison),
        "contenders": [_contender(each, comparison) for each in comparison.contenders],
        "quickest": _named(comparison.quickest()),
        "cheapest": _named(comparison.cheapest()),
        "best": _named(comparison.best()),
        "verdicts": [
            {
                "functions": _named(each.functions),
                "machines": _named(each.machines),
                "time": each.time,
                "cost": each.cost,
                "better": each.better,
                "text": words_of(each),
            }
            for each in comparison.verdicts()
        ],
        "assumptions": {
            "objective": comparison.request.objective,
            "speed": comparison.reference.forecast.speed,
            "ranges": BARS,
            "spot": SPOT,
            "gpu": GPU,
            "counted": COUNTED,
            "left_out": LEFT_OUT,
            "prices": [price_document(each.request.scene) for each in planned if each.request.scene],
            "task_built_s_ago": age_s,
        },
    }


def basis_of(comparison: Comparison) -> str:
    """On what basis contenders are compared."""
    told, yardstick, reference = BASES[comparison.basis], comparison.yardstick, comparison.reference
    if yardstick is None:
        return told
    if yardstick.basis == "usd":
        return f"{told}: {usd_of(yardstick.usd)}"
    unit = "vCPUs" if yardstick.basis == "vcpu" else "MiB"
    return f"{told}: {yardstick.wanted:.4g} {unit}, as of {reference.backend}'s {_fleet(reference)}"


def _contender(each: Contender, comparison: Comparison) -> dict[str, Any]:
    forecast = each.forecast
    return {
        **_named(each),
        "workers": each.plan.allocation.workers,
        "memory_mib": each.plan.allocation.memory_mib,
        "vcpus": forecast.vcpus,
        "channel": each.plan.allocation.sync.channel if each.kind == "functions" else "",
        "step": asdict(forecast.step),
        "steps": forecast.steps,
        "start_s": forecast.start_s,
        "finish_s": asdict(each.finish_s),
        "cost_usd": asdict(each.cost_usd),
        "cost_items_usd": dict(forecast.cost_items_usd),
        "usd_per_h": each.usd_per_h,
        "limits": dict(forecast.limits),
        "speed": forecast.speed,
        "time": _against(each, comparison.quickest(), "finish_s"),
        "cost": _against(each, comparison.cheapest(), "cost_usd"),
        "unequal": each.unequal,
        "why": why(each),
        "price": each.price.model_dump(mode="json"),
    }


def _named(each: Contender) -> dict[str, Any]:
    return {"backend": each.backend, "kind": each.kind, "offer": each.offer, "spot": each.spot}


def _against(each: Contender, best: Contender, figure: str) -> str:
    """How it stands to the best: "best", "tie", or how many times as much."""
    if each is best:
        return "best"
    mine, theirs = getattr(each, figure), getattr(best, figure)
    if outcome(mine, theirs) == "tie":
        return "tie"
    return f"{mine.likely / theirs.likely:.2g}x" if theirs.likely else "more"


def _missed(each: Contender) -> str:
    """The limits that it does not keep; empty for none."""
    missed = [name.replace("_", " ") for name, standing in each.forecast.limits.items() if standing == "missed"]
    return f"misses: {', '.join(missed)}" if missed else ""


def why(each: Contender) -> str:
    """What it spends most of its time on, and what stands against it."""
    forecast, step = each.forecast, each.forecast.step
    spent = {
        "starting": forecast.start_s,
        "computing": forecast.steps * step.compute_s,
        "synchronising": forecast.steps * step.sync_s,
        "loading": forecast.steps * step.load_s,
    }
    most = max(spent, key=lambda what: spent[what])
    told = [f"{spent[most] / sum(spent.values()):.0%} {most}"]
    return "; ".join(filter(None, [*told, _missed(each), each.unequal]))


def print_comparison(comparison: Comparison, planned: Sequence[Planned], age_s: float | None) -> None:
    """Contenders, who is best, and what is to be known of them; `age_s` as of `smlt.cli.plans.document_of`."""
    from smlt.cli.tables import print_rows

    head = ["where", "fleet", "vCPUs", "start", "step", "finish", "USD", "USD/h", "time", "cost", "spends"]
    print_rows([_row(each, comparison) for each in comparison.contenders], head=head, right=[2, 3, 4, 5, 6, 7, 8, 9])
    print()
    print(f"basis: {basis_of(comparison)}")
    for kind, of in (("functions", "functions"), (None, "of all")):
        print(f"quickest {of}: {_with_ties(comparison, comparison.quickest(kind), kind, 'finish_s')}")
        print(f"cheapest {of}: {_with_ties(comparison, comparison.cheapest(kind), kind, 'cost_usd')}")
    for verdict in comparison.verdicts():
        print(words_of(verdict))
    print(f"compute speed: {SPEEDS[comparison.reference.forecast.speed]}; {GPU}; {SPOT}")
    print(BARS)
    if age_s is not None:
        print(age_words(age_s))
    print(f"prices: {'; '.join(price_words(each.request.scene) for each in planned if each.request.scene)}")
    machines = {
        f"{each.offer} of {each.price.as_of or 'the user'}{age_mark(each.price.as_of)}"
        for each in comparison.contenders
        if each.kind != "functions"
    }
    if machines:
        print(f"machines: {', '.join(sorted(machines))}")
    print(f"counted: {COUNTED}; without {LEFT_OUT}")


def bars_of(comparison: Comparison) -> list[Bar]:
    """Contenders for a picture."""
    return [
        Bar(f"{each.backend}: {_fleet(each)}", each.kind, each.finish_s, each.cost_usd)
        for each in comparison.contenders
    ]


def _row(each: Contender, comparison: Comparison) -> list[str]:
    forecast = each.forecast
    return [
        each.backend,
        _fleet(each),
        f"{each.plan.allocation.workers * forecast.vcpus:.3g}",
        format_duration(forecast.start_s),
        f"{forecast.step.total_s * 1000:.4g} ms",
        shown_range(each.finish_s, format_duration),
        shown_range(each.cost_usd, usd_of),
        f"{each.usd_per_h:.3g}",
        _against(each, comparison.quickest(), "finish_s"),
        _against(each, comparison.cheapest(), "cost_usd"),
        why(each),
    ]


def _fleet(each: Contender) -> str:
    count = each.plan.allocation.workers
    if each.kind != "functions":
        return f"{count} x {each.offer}{', spot' if each.spot else ''}"
    memory_mib, channel = each.plan.allocation.memory_mib, each.plan.allocation.sync.channel
    return f"{count} x {each.offer or 'process'}, {memory_mib} MiB{f', {channel}' if count > 1 else ''}"


def _with_ties(comparison: Comparison, best: Contender, kind: str | None, figure: str) -> str:
    ties = [
        f"{each.backend} {_fleet(each)}"
        for each in comparison.contenders
        if kind in (None, each.kind) and _against(each, best, figure) == "tie"
    ]
    tied = f"; a tie with {'; '.join(ties)}" if ties else ""
    return f"{best.backend} {_fleet(best)}{tied}"


def words_of(verdict: Verdict) -> str:
    """A verdict as a sentence."""
    functions, machines = verdict.functions, verdict.machines
    kind = ("a machine with a GPU" if machines.kind == "gpu" else "virtual machines") + (
        " at spot price" if machines.spot else ""
    )
    told = f"{_told(machines)} against {_told(functions)}"
    if verdict.better == "depends":
        first, second = ("quicker", "dearer") if verdict.time == "less" else ("cheaper", "slower")
        return f"{kind}: {first}, and {second}, than functions: {told}"
    if verdict.better == "tie":
        return f"{kind}: a tie with functions: {told}"
    better = f"functions are the better choice than {kind}"
    if verdict.better == "machines":
        better = f"{kind}: the better choice than functions"
    return f"{better} (time: {_outcome(verdict.time)}, cost: {_outcome(verdict.cost)}): {told}"


def _outcome(found: str) -> str:
    return found if found == "tie" else f"{found} than functions'"


def _told(each: Contender) -> str:
    told = f"{each.backend} {_fleet(each)}, {format_duration(each.finish_s.likely)}, {usd_of(each.cost_usd.likely)}"
    return f"{told} ({_missed(each)})" if _missed(each) else told
