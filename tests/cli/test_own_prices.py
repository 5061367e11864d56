"""The user's own prices reach the ledger of a run."""

from __future__ import annotations

import json


def test_a_run_is_billed_by_the_users_own_price(smlt, linear):
    run = ["train", "task.py:Linear", "--workers", "1", "--set", "job.steps=2", "-o", "json"]
    free = json.loads(smlt(*run, "--name", "free").stdout)
    paid = smlt(*run, "--name", "paid", "--set", "prices.local.function.usd_per_request=0.25")
    assert free["cost_usd"]["total"] == 0
    assert json.loads(paid.stdout)["cost_usd"]["total"] == 0.25
    refused = smlt(*run, "--name", "none", "--set", "prices.local.function.usd_per_call=1")
    assert refused.returncode == 2
    assert "no such key (did you mean" in refused.stderr
    assert not (linear / ".smlt" / "runs" / "none").exists()
