"""`smlt prices`: what is shown, what is fetched and kept, what is exported, and what is said when it fails."""

from __future__ import annotations

import csv
import io
import json
import socket
from datetime import date
from pathlib import Path

import pytest

from smlt.core.catalog import catalog_of
from tests.support.price_server import recorded, serving

TODAY = date(2026, 11, 24)
NO_PRICE = {
    "currencyCode": "USD",
    "meterName": "Standard vCPU Active Usage",
    "unitOfMeasure": "1 Second",
    "retailPrice": "dear",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A cache of the test's own, a day that does not move, and no key."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("smlt.cli.prices.today", lambda: TODAY)


@pytest.fixture
def figures(main):
    """The figures of a provider as `smlt prices show` has them, by key."""

    def figures(provider, *arguments):
        code, out, err = main("prices", "show", provider, "-o", "json", *arguments)
        assert code == 0, err
        (document,) = json.loads(out)["catalogs"]
        return {figure["key"]: figure for figure in document["figures"]}

    return figures


@pytest.fixture
def refreshed(main):
    """Refresh a provider's prices from what was recorded; returns what is said of it."""

    def refreshed(provider, *arguments, answers=None):
        with serving(answers or recorded(provider)) as server:
            code, out, err = main("prices", "refresh", provider, "--endpoint", server.url, "-o", "json", *arguments)
        assert code == 0, err
        (document,) = json.loads(out)["refreshed"]
        return document, server

    return refreshed


def test_without_a_verb_all_providers_are_shown(main):
    code, out, err = main("prices")
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines() if "catalog " in line] == ["local", "aws", "gcp", "azure"]
    rows = [line.split()[:3] for line in out.splitlines()]
    assert ["functions.lambda_x86.usd_per_gib_s", "1.66667e-05", "USD/GiB-s"] in rows
    assert "time_limit_s" not in out
    assert "warning: azure: " in err
    assert "`smlt prices refresh azure`" in err


def test_limits_and_speeds_are_shown_where_all_is_asked_for(main):
    code, out, _ = main("prices", "show", "aws", "--all")
    assert code == 0
    assert any(line.split()[:3] == ["functions.lambda_x86.time_limit_s", "900", "s"] for line in out.splitlines())


def test_prices_of_today_are_not_old(main, monkeypatch):
    monkeypatch.setattr("smlt.cli.prices.today", lambda: date(2025, 1, 1))
    assert main("prices")[2] == ""


def test_every_figure_names_its_source(figures):
    figure = figures("aws")["functions.lambda_x86.usd_per_gib_s"]
    assert (figure["value"], figure["as_of"], figure["confidence"]) == (1.66667e-5, "2026-08-22", "high")
    assert "infracost golden lambda_function_test" in figure["source"]


def test_what_the_user_knows_better(figures, folder):
    (folder / "smlt.toml").write_text('[prices.aws.servers."cache.t3.medium"]\nusd_per_h = 0.05\n')
    own = figures("aws")['servers."cache.t3.medium".usd_per_h']
    assert (own["value"], own["as_of"], own["source"]) == (0.05, None, "smlt.toml")
    key = "functions.flex.usd_per_gib_s"
    flag = figures("azure", "--set", f"prices.azure.{key}=1e-5")[key]
    assert (flag["value"], flag["source"]) == (1e-5, "--set")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("prices.aws.functions.lambda_x68.usd_per_gib_s=1", "no such table (did you mean 'lambda_x86'?)"),
        ("prices.aws.functions.lambda_x86.usd_per_gib_s=-1", "--set: functions.lambda_x86.usd_per_gib_s: must be at"),
        ("prices.aws=1", "aws is a table of tables"),
        ("prices.asw.function.usd_per_gib_s=1", "no price list of 'asw'\n  hint: did you mean 'aws'?"),
    ],
)
def test_what_the_user_cannot_say(main, setting, message):
    code, out, err = main("prices", "show", "--set", setting)
    assert (code, out) == (2, "")
    assert message in err


def test_azure_is_asked_over_http_without_an_account(refreshed, figures):
    document, server = refreshed("azure")
    changed = {item["key"]: (item["before"], item["now"]) for item in document["changed"]}
    assert changed == {
        "functions.container_apps_t4.usd_per_vcpu_s": (2.4e-5, 3.4e-5),
        "functions.container_apps_a100.usd_per_vcpu_s": (2.4e-5, 3.4e-5),
        "functions.container_apps_t4.usd_per_gib_s": (3e-6, 4e-6),
        "functions.container_apps_a100.usd_per_gib_s": (3e-6, 4e-6),
        "functions.container_apps_t4.usd_per_gpu_s": (7.2e-5, 7.22e-5),
        "stores.blob.usd_per_gb_month": (0.018, 0.0184),
        "vms.Standard_D4s_v5.usd_per_h": (0.192, 0.2),
        "vms.Standard_D4s_v5.spot_usd_per_h": (0.040531, 0.0412),
    }
    as_before = {"functions.consumption.usd_per_gib_s", "functions.flex.usd_per_request", "servers.redis_c3.usd_per_h"}
    assert as_before <= set(document["unchanged"])
    assert "servers.redis_p2.usd_per_h" in document["missing"]  # two prices for one thing are none
    assert "vms.Standard_D8s_v5.usd_per_h" in document["missing"]
    assert any("$skip=1" in path for path in server.asked)
    renewed = figures("azure")["functions.flex.usd_per_gib_s"]
    assert (renewed["value"], renewed["as_of"], renewed["confidence"]) == (2.6e-5, "2026-11-24", "high")
    assert renewed["source"] == server.url


def test_a_price_that_jumps_is_not_taken_unless_it_is_asked_for(refreshed, figures):
    key = "functions.container_apps_a100.usd_per_gpu_s"
    document, _ = refreshed("azure")
    assert document["refused"] == [{"key": key, "before": 5.28e-4, "now": 0.0528}]
    assert figures("azure")[key]["value"] == 5.28e-4
    document, _ = refreshed("azure", "--accept-jumps")
    assert document["refused"] == []
    assert figures("azure")[key]["value"] == 0.0528


def test_aws_is_read_from_its_bulk_files(refreshed, figures):
    document, server = refreshed("aws")
    changed = {item["key"]: (item["before"], item["now"]) for item in document["changed"]}
    assert changed == {
        "functions.lambda_arm64.usd_per_gib_s": (1.33334e-5, 1.2e-5),
        'servers."cache.r5.4xlarge".usd_per_h': (1.724, 1.8),
    }
    assert {"stores.s3.usd_per_put", "stores.s3.usd_per_gb_month", "stores.dynamodb.usd_per_gb_in"} <= set(
        document["unchanged"]
    )
    assert len(server.asked) == len(set(server.asked)) == 4
    assert figures("aws")["functions.lambda_arm64.usd_per_gib_s"]["value"] == 1.2e-5


def test_gcp_is_asked_with_a_key_that_is_never_said(refreshed, figures, main, monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", "hush")
    document, server = refreshed("gcp")
    assert set(server.keys) == {"hush"}
    assert "hush" not in str(server.asked)
    changed = {item["key"]: (item["before"], item["now"]) for item in document["changed"]}
    assert changed == {"functions.cloud_run_jobs_tier2.usd_per_vcpu_s": (2.16e-5, 2.2e-5)}
    assert {
        "functions.cloud_run_jobs.usd_per_vcpu_s",
        "functions.cloud_run.usd_per_gib_s",
        "functions.cloud_run_tier2.usd_per_vcpu_s",
        "stores.gcs.usd_per_put",
    } <= set(document["unchanged"])
    with serving({"services": 403}) as server:
        code, _, err = main("prices", "refresh", "gcp", "--endpoint", server.url)
    assert code == 4
    assert "answered 403" in err
    assert "is the key right" in err
    assert "hush" not in err


def test_gcp_without_a_key(main):
    code, _, err = main("prices", "refresh", "gcp")
    assert code == 2
    assert "set GOOGLE_API_KEY" in err


def test_what_changed_is_printed(main):
    with serving(recorded("azure")) as server:
        code, out, _ = main("prices", "refresh", "azure", "--endpoint", server.url)
    assert code == 0
    assert out.startswith("azure: 8 changed, ")
    assert any(line.split()[:3] == ["vms.Standard_D4s_v5.usd_per_h", "0.192", "0.2"] for line in out.splitlines())
    assert "refused: too far off, see --accept-jumps" in out


def test_offline_it_says_so_and_keeps_what_it_has(main, refreshed, figures):
    refreshed("azure")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    code, out, err = main("prices", "refresh", "azure", "--endpoint", nobody)
    assert (code, out) == (4, "")
    assert "cannot be reached: " in err
    assert "the prices that are kept stay in use" in err
    assert figures("azure")["vms.Standard_D4s_v5.usd_per_h"]["value"] == 0.2


@pytest.mark.parametrize(
    ("provider", "answers", "message"),
    [
        ("azure", {"/": {"Elements": []}}, "answered without Items: the form of its price list has changed"),
        ("azure", {"/": b"<html>"}, "did not answer with JSON"),
        ("azure", {"/": 500}, "answered 500"),
        ("azure", {"/": {"Items": [], "NextPageLink": "{endpoint}/?$filter=x"}}, "a page leads back to an earlier one"),
        ("azure", {"/": {"Items": [NO_PRICE]}}, "answered without what was expected"),
        ("aws", {"/": {"products": {}}}, "answered without terms"),
        ("aws", {"/": {"products": {}, "terms": {}}}, "answered without terms on demand"),
    ],
)
def test_answers_of_another_form(main, provider, answers, message):
    with serving(answers) as server:
        code, _, err = main("prices", "refresh", provider, "--endpoint", server.url)
    assert code == 4
    assert message in err


def test_one_provider_that_cannot_be_reached_does_not_stop_another(main, figures, monkeypatch):
    with serving(recorded("azure")) as server:
        monkeypatch.setattr("smlt.backends.azure.prices.AzurePriceList.address", server.url)
        monkeypatch.setattr("smlt.backends.aws.prices.AwsPriceList.address", "http://127.0.0.1:9")
        code, out, err = main("prices", "refresh")
    assert code == 4
    assert out.startswith("azure: 8 changed, ")
    assert "gcp was left out" in err
    assert "127.0.0.1:9 cannot be reached" in err
    assert figures("azure")["vms.Standard_D4s_v5.usd_per_h"]["value"] == 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["azure", "aws", "--endpoint", "http://127.0.0.1"], "name the provider"),
        (["azure", "--endpoint", "file:///etc"], "not an address of a price list"),
        (["local"], "there is no price list of 'local'"),
    ],
)
def test_what_cannot_be_refreshed(main, arguments, message):
    code, _, err = main("prices", "refresh", *arguments)
    assert code == 2
    assert message in err


def test_prices_that_are_newer_in_smlt_than_in_the_cache(refreshed, figures, monkeypatch):
    monkeypatch.setattr("smlt.cli.prices.today", lambda: date(2026, 1, 1))
    refreshed("azure")
    kept = figures("azure")
    assert kept["vms.Standard_D4s_v5.usd_per_h"]["value"] == 0.192  # read 2026-09-06
    assert kept["functions.container_apps_t4.usd_per_gpu_s"]["value"] == 7.22e-5  # read 2025-11-04


def test_a_cache_that_was_damaged(main, refreshed):
    document, _ = refreshed("azure")
    Path(document["file"]).write_text("{")
    code, _, err = main("prices", "show", "azure")
    assert code == 2
    assert "is no cache of prices" in err
    assert "delete it" in err


def test_an_export_pins_what_it_was_made_of(main, refreshed, figures, folder):
    refreshed("azure")
    pin = folder / "pin.json"
    pin.write_text(main("prices", "export", "azure", "--format", "json")[1])
    (document,) = json.loads(pin.read_text())["catalogs"]
    before = figures("azure")
    refreshed("azure", "--accept-jumps")
    (folder / "smlt.toml").write_text("[prices.azure.vms.Standard_D4s_v5]\nusd_per_h = 9.0\n")
    assert figures("azure", "--catalog", str(pin)) == before != figures("azure")
    _, out, err = main("prices", "show", "--catalog", str(pin), "-o", "json")
    assert json.loads(out)["catalogs"][0]["sha256"] == catalog_of(document, "pin").sha256
    assert err == ""


def test_a_pinned_file_in_toml(main, folder):
    (folder / "own.toml").write_text(
        'provider = "own"\nsource = "a contract"\nas_of = "2026-01-01"\n'
        "function = { usd_per_gib_s = 1e-5, usd_per_request = 0 }\n"
    )
    code, out, _ = main("prices", "--catalog", "own.toml")
    assert code == 0
    assert out.startswith("own, USD, catalog ")
    code, _, err = main("prices", "show", "aws", "--catalog", "own.toml")
    assert code == 2
    assert "there is no price list of 'aws'" in err


def test_csv_has_a_line_a_figure(main, figures):
    _, out, _ = main("prices", "export", "aws", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["key"] for row in rows} == set(figures("aws"))
    (row,) = [row for row in rows if row["key"] == "stores.s3.usd_per_put"]
    assert (float(row["value"]), row["unit"]) == (5e-6, "USD/put")
    assert (row["as_of"], row["confidence"]) == ("2026-08-21", "high")


def test_bibtex_has_an_entry_for_everything_that_is_sold(main):
    _, out, _ = main("prices", "export", "aws", "gcp", "azure", "--format", "bibtex")
    labels = [line for line in out.splitlines() if line.startswith("@misc{")]
    assert len(labels) == len(set(labels)) == 23 + 17 + 19
    assert out.count("{") == out.count("}")
    assert "infracost golden lambda\\_function\\_test" in out
