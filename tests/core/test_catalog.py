"""Price lists: what a use costs, where a figure comes from, what is refused and how it is said."""

from __future__ import annotations

import json
import tomllib
from datetime import date, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.billing import FunctionPrice, FunctionUse, VcpuMap, billed_s
from smlt.core.catalog import Catalog, Provenance, catalog_of, load_catalog, parse_catalog, read_catalogs
from smlt.core.errors import ConfigError
from smlt.core.figures import figures, offers, old_prices
from smlt.core.offers import ServerOffer, StoreOffer, VmOffer

PROVIDERS = ("local", "lithops", "aws", "gcp", "azure")
WHERE = {"source": "here", "as_of": "2026-01-01", "confidence": "high"}


def packaged(provider: str) -> Catalog:
    return load_catalog(f"smlt.backends.{provider}")


def plain(provider: str) -> dict[str, Any]:
    text = resources.files(f"smlt.backends.{provider}").joinpath("catalog.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_figure_has_a_source_a_date_and_a_confidence(provider: str) -> None:
    catalog = packaged(provider)
    assert catalog.provider == provider
    for figure in figures(catalog):
        assert figure.provenance.source
        assert figure.provenance.as_of is not None
        assert date.fromisoformat(figure.provenance.as_of) <= date(2026, 11, 24)


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_a_cloud_sells_functions_stores_servers_and_machines(provider: str) -> None:
    assert {kind for kind, _, _ in offers(packaged(provider))} == {"functions", "stores", "servers", "vms", "traffic"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_catalog_is_read_back_from_what_it_writes(provider: str, tmp_path: Path) -> None:
    catalog = packaged(provider)
    file = tmp_path / "prices.json"
    for document in (catalog.to_plain(), {"catalogs": [catalog.to_plain()]}):
        file.write_text(json.dumps(document))
        assert read_catalogs(file) == {provider: catalog}
        assert read_catalogs(file)[provider].sha256 == catalog.sha256


def test_the_digest_is_of_what_is_said_and_not_of_how() -> None:
    text = (
        'provider = "x"\nsource = "here"\nas_of = "2026-01-01"\n[function]\nusd_per_gib_s = {}\nusd_per_request = 0\n'
    )
    first, same, other = (parse_catalog(text.format(price), "x.toml") for price in ("1e-5", "0.00001", "2e-5"))
    assert first.sha256 == same.sha256 != other.sha256


# Worked by hand from the rates of each provider's page: seconds, MiB, USD.
@pytest.mark.parametrize(
    ("provider", "functions", "seconds", "memory_mib", "usd"),
    [
        ("aws", "lambda_x86", 10.0001, 2048, 10.001 * 2 * 1.66667e-5 + 2e-7),
        ("aws", "lambda_arm64", 0.0, 1024, 0.001 * 1.33334e-5 + 2e-7),
        ("gcp", "cloud_run", 10.01, 4096, 10.1 * (2.4e-5 + 4 * 2.5e-6) + 4e-7),
        ("gcp", "cloud_run_jobs", 5.0, 8192, 60 * (2 * 1.8e-5 + 8 * 2e-6)),
        ("gcp", "cloud_run_gpu_l4", 60.0, 16384, 60 * (4 * 1.8e-5 + 16 * 2e-6 + 1.867e-4)),
        ("azure", "consumption", 0.01, 200, 0.1 * 0.25 * 1.6e-5 + 2e-7),
        ("azure", "flex", 1.01, 2048, 1.1 * 2 * 2.6e-5 + 4e-7),
        ("azure", "container_apps", 1.5, 4096, 2 * (2 * 2.4e-5 + 4 * 3e-6)),
    ],
)
def test_functions_are_billed_by_their_providers_rounding(
    provider: str, functions: str, seconds: float, memory_mib: int, usd: float
) -> None:
    price = packaged(provider).using(functions).function
    assert price.usd(price.use(seconds, memory_mib)) == pytest.approx(usd, rel=1e-9)


def test_the_first_functions_are_used_unless_others_are_chosen() -> None:
    aws = packaged("aws")
    assert aws.function.usd_per_gib_s == aws.functions["lambda_x86"].usd_per_gib_s
    assert aws.using("lambda_arm64").function.usd_per_gib_s == aws.functions["lambda_arm64"].usd_per_gib_s
    with pytest.raises(ConfigError, match="did you mean 'lambda_arm64'"):
        aws.using("lambda_arm")


def test_init_is_billed_where_it_is_billed() -> None:
    billed = FunctionPrice(usd_per_gib_s=1.0, usd_per_request=0.0)
    free = FunctionPrice(usd_per_gib_s=1.0, usd_per_request=0.0, init_billed=False)
    assert billed.usd(billed.use(2.0, 1024, init_s=3.0)) == 5.0
    assert free.usd(free.use(2.0, 1024, init_s=3.0)) == 2.0


def test_a_free_tier_counts_only_where_it_is_asked_for() -> None:
    price = packaged("aws").function
    small = FunctionUse(gib_s=300_000.0, requests=1000)
    assert price.usd(small, free_tier=True) == 0.0
    assert price.usd(small) == pytest.approx(300_000 * 1.66667e-5 + 1000 * 2e-7)
    large = FunctionUse(gib_s=500_000.0, requests=1000)
    assert price.usd(large, free_tier=True) == pytest.approx(100_000 * 1.66667e-5)


@given(st.floats(0, 1e5), st.sampled_from([0.0, 0.001, 0.1, 1.0, 60.0, 3600.0]), st.floats(0, 100))
def test_billed_time_is_a_multiple_and_never_less(seconds: float, granularity: float, minimum: float) -> None:
    billed = billed_s(seconds, granularity, minimum)
    assert billed >= max(seconds, minimum) - 1e-5 * (granularity or 1)
    assert billed <= max(seconds, minimum) + granularity + 1e-9
    if granularity:
        assert billed / granularity == pytest.approx(round(billed / granularity), abs=1e-6)


@given(st.integers(128, 10240), st.integers(128, 10240))
def test_more_memory_never_has_fewer_vcpus(one: int, other: int) -> None:
    for provider in ("aws", "gcp", "azure"):
        for offer in packaged(provider).functions.values():
            assert offer.vcpus is not None
            less, more = sorted((one, other))
            assert offer.vcpus.at(less) <= offer.vcpus.at(more)


def test_vcpus_in_proportion_and_by_table() -> None:
    assert VcpuMap(mib_per_vcpu=1769, most=6).at(1769) == 1
    assert VcpuMap(mib_per_vcpu=1769, most=6).at(10240) == pytest.approx(5.788, abs=1e-3)
    table = VcpuMap(table=((512, 0.25), (2048, 1.0)))
    assert [table.at(memory) for memory in (512, 513, 2048, 4096)] == [0.25, 1.0, 1.0, 1.0]


def test_a_server_is_billed_by_the_whole_hour() -> None:
    node = packaged("aws").servers["cache.t3.medium"]
    assert node.usd(1.0) == pytest.approx(0.068)
    assert node.usd(3601.0) == pytest.approx(2 * 0.068)
    assert ServerOffer(usd_per_h=3.6, memory_gib=1, **WHERE).usd(10.0) == pytest.approx(0.01)


def test_a_store_is_billed_by_requests_and_bytes() -> None:
    store = StoreOffer(
        usd_per_put=1.0,
        usd_per_get=0.1,
        usd_per_gb_in=2.0,
        usd_per_gb_out=3.0,
        usd_per_gb_month=730.0,
        put_latency_s=0.1,
        get_latency_s=0.1,
        **WHERE,
    )
    assert store.usd(puts=2, gets=3, bytes_in=1e9, bytes_out=2e9, byte_s=3.6e12) == pytest.approx(2.3 + 2 + 6 + 1)


def test_a_machine_on_demand_and_spot() -> None:
    machine = VmOffer(usd_per_h=3.6, spot_usd_per_h=0.36, minimum_s=60, vcpus=1, memory_gib=1, boot_s=(30, 90), **WHERE)
    assert machine.usd(10.0) == pytest.approx(0.06)
    assert machine.usd(100.0, spot=True) == pytest.approx(0.01)


def test_weak_figures_have_little_confidence() -> None:
    aws = packaged("aws")
    assert aws.provenance(("functions", "lambda_x86", "usd_per_gib_s")).confidence == "high"
    assert aws.provenance(("functions", "lambda_x86", "bandwidth_mb_s")).confidence == "low"


def test_prices_grow_old_and_limits_do_not() -> None:
    aws = packaged("aws")
    read = date(2026, 8, 22)
    assert not [item for item in old_prices(aws, read + timedelta(90)) if item.path[1] == "lambda_x86"]
    old = [item for item in old_prices(aws, read + timedelta(91)) if item.path[1] == "lambda_x86"]
    assert [item.path[-1] for item in old] == ["usd_per_gib_s", "usd_per_request"]
    assert old_prices(packaged("local"), date(2099, 1, 1)) == []


def test_a_figure_can_be_replaced_and_says_by_whom() -> None:
    path = ("servers", "cache.t3.medium", "usd_per_h")
    said = Provenance(source="my contract", as_of=None, confidence="high")
    amended = packaged("aws").amend({path: (0.05, said)}, "smlt.toml")
    assert amended.servers["cache.t3.medium"].usd_per_h == 0.05
    assert amended.provenance(path) == said
    assert not [figure for figure in old_prices(amended, date(2099, 1, 1)) if figure.path == path]
    assert amended.sha256 != packaged("aws").sha256


def test_what_is_used_follows_what_was_replaced() -> None:
    said = Provenance(source="x", as_of=None, confidence="high")
    path = ("functions", "lambda_arm64", "usd_per_gib_s")
    assert packaged("aws").using("lambda_arm64").amend({path: (1.0, said)}, "x").function.usd_per_gib_s == 1.0
    local = packaged("local").amend({("function", "usd_per_gib_s"): (0.5, said)}, "x")
    assert local.function.usd_per_gib_s == 0.5


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("functions", "lamda_x86", "usd_per_gib_s"), 1.0, "no such table (did you mean 'lambda_x86'?)"),
        (("function_", "usd_per_gib_s"), 1.0, "no such table (did you mean 'function'?)"),
        (("functions", "lambda_x86", "usd_per_gibs"), 1.0, "no such key (did you mean 'usd_per_gib_s'?)"),
        (("functions", "lambda_x86", "usd_per_gib_s"), "dear", 'must be a number, not "dear" (like usd_per_gib_s'),
        (("functions", "lambda_x86", "usd_per_gib_s"), -1.0, "must be at least 0"),
    ],
)
def test_what_cannot_be_replaced(path: tuple[str, ...], value: Any, message: str) -> None:
    said = Provenance(source="x", as_of=None, confidence="high")
    with pytest.raises(ConfigError) as caught:
        packaged("aws").amend({path: (value, said)}, "smlt.toml")
    assert message in str(caught.value)
    assert "smlt.toml: " in str(caught.value)


def broken(**changes: Any) -> str:
    """What is said of AWS' price list with some keys of its x86 functions changed; None takes a key away."""
    data = plain("aws")
    table = {**data["functions"]["lambda_x86"], **changes}
    data["functions"]["lambda_x86"] = {key: value for key, value in table.items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        catalog_of(data, "prices.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"usd_per_gib_s": None}, "functions.lambda_x86.usd_per_gib_s: is missing (like usd_per_gib_s = 1.66667e-05)"),
        ({"as_of": "yesterday"}, "functions.lambda_x86.as_of: "),
        ({"confidence": "sure"}, "functions.lambda_x86.confidence: must be 'high', 'medium' or 'low', not \"sure\""),
        ({"weak": ["price"]}, "weak names price, which is no key of this table"),
        ({"vcpus": {}}, "functions.lambda_x86.vcpus: give either mib_per_vcpu or table"),
        ({"vcpus": {"table": [[2048, 1], [1024, 1]]}}, "the table's memory ascends"),
        ({"memory_mib": {"choices": [2, 1]}}, "functions.lambda_x86.memory_mib: choices ascend"),
        ({"memory_mib": {"least": 2, "most": 1}}, "least = 2 is more than most = 1"),
        ({"start_s": [9.0, 3.0]}, "a range ascends"),
        ({"time_limit_s": 0}, "functions.lambda_x86.time_limit_s: must be more than 0.0, not 0"),
        ({"usd_per_vcpu_s": 1.0, "vcpus": None}, "vCPUs have a price, but vcpus does not say how many there are"),
        ({"colour": "red"}, "functions.lambda_x86.colour: no such key"),
    ],
)
def test_a_mistake_is_told_with_file_key_and_mend(changes: dict[str, Any], message: str) -> None:
    said = broken(**changes)
    assert said.startswith("1 mistake in prices:\n  - prices.toml: ")
    assert message in said


def test_all_mistakes_are_told_at_once() -> None:
    said = broken(usd_per_gib_s=-1, usd_per_request="x")
    assert said.startswith("2 mistakes in prices:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("provider = ", "prices.toml: not valid TOML"),
        ('provider = "x"\nsource = "y"\nas_of = "2026-01-01"', "has neither [function] nor"),
        (
            'provider = "x"\nsource = "y"\nas_of = "2026-01-01"\n'
            "function = { usd_per_gib_s = 0, usd_per_request = 0 }\n[functions.f]\nusd_per_gib_s = 0\n"
            'usd_per_request = 0\nmemory_mib = { choices = [1] }\nmax_workers = 1\nsource = "y"\n'
            'as_of = "2026-01-01"\nconfidence = "low"',
            "has both [function] and [functions.NAME]",
        ),
        ('provider = "x"\nsource = "y"\nas_of = "2026-01-01"\nschema_version = 2\n[function]', "schema_version"),
    ],
)
def test_what_is_no_price_list(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_catalog(text, "prices.toml")
    assert message in str(caught.value)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text("{")
    with pytest.raises(ConfigError, match=r"prices\.json: not valid JSON"):
        read_catalogs(tmp_path / "prices.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        read_catalogs(tmp_path / "none.toml")
