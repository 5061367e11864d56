"""The user's own prices reach the ledger of a run."""

from __future__ import annotations

import json


def test_a_run_is_billed_by_the_users_own_price(smlt, linear):
    run = ["train", "task.py:Linear", "--workers", "1", "--set", "job.steps=2", "-o", "json", "-y"]
    free = json.loads(smlt(*run, "--name", "free").stdout)
    paid = smlt(*run, "--name", "paid", "--set", "prices.local.function.usd_per_request=0.25")
    assert free["cost_usd"]["total"] == 0
    assert json.loads(paid.stdout)["cost_usd"]["total"] == 0.25
    refused = smlt(*run, "--name", "none", "--set", "prices.local.function.usd_per_call=1")
    assert refused.returncode == 2
    assert "no such key (did you mean" in refused.stderr
    assert not (linear / ".smlt" / "runs" / "none").exists()


def test_a_run_is_billed_by_a_pinned_file_and_says_which(smlt, linear):
    pin = linear / "pin.toml"
    pin.write_text(
        'provider = "local"\nsource = "a contract"\nas_of = "2026-01-01"\n'
        "function = { usd_per_gib_s = 0.0, usd_per_request = 0.5 }\n"
    )
    run = ["train", "task.py:Linear", "--workers", "1", "--set", "job.steps=2", "-o", "json", "-y"]
    summary = json.loads(smlt(*run, "--catalog", "pin.toml").stdout)
    assert summary["cost_usd"]["total"] == 0.5
    shown = json.loads(smlt("prices", "--catalog", "pin.toml", "-o", "json").stdout)
    assert summary["catalog_sha256"] == shown["catalogs"][0]["sha256"]
    pin.write_text(pin.read_text().replace("local", "aws"))
    refused = smlt(*run, "--catalog", "pin.toml")
    assert refused.returncode == 2
    assert "pin.toml: holds prices of aws, not of local" in refused.stderr
