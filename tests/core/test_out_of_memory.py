"""Workers that run out of memory, for real: what says so, and runs that go on with more."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from smlt.core.errors import OutOfMemory, TaskError
from smlt.core.out_of_memory import is_out_of_memory
from smlt.core.runlog import read_events
from smlt.core.summary import Summary
from tests.support.engines import Runs

TOO_MUCH = 1 << 56
"""Bytes: more than there are addresses."""
NEEDY = {"params": {"needs_at": 10, "needs_mib": 1200}, "name": "needy"}
LIMITED = {"name": "local", "enforce_memory": True}


def test_a_framework_s_allocator_says_it_in_its_own_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(TOO_MUCH)
    assert is_out_of_memory(caught.value)


def test_numpy_and_the_system_say_it() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(TOO_MUCH, np.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))


def test_an_error_that_was_translated_says_it_still() -> None:
    error = TaskError("build_model raised MemoryError")
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), TaskError("cannot allocate memory for jokes"), None])
def test_nothing_else_says_it(error: Exception | None) -> None:
    assert not is_out_of_memory(error)


def test_a_run_goes_on_with_more_memory_and_no_other_bits(runs: Runs, undisturbed: Summary) -> None:
    """The kernel refuses 1200 MiB to workers of 1024."""
    summary = runs.train(job=NEEDY, backend=LIMITED)
    assert summary.status == "succeeded", summary.error
    assert summary.allocation["memory_mib"] == 2048
    assert summary.state_sha256 == undisturbed.state_sha256
    (raised,) = [event.data for event in runs.events if event.kind == "memory_raised"]
    assert (raised["from_mib"], raised["memory_mib"]) == (1024, 2048)
    assert "Unable to allocate 1.17 GiB" in raised["detail"]


def test_who_has_too_little_to_begin_with_is_launched_with_more(runs: Runs, undisturbed: Summary) -> None:
    summary = runs.train(job={"name": "tiny"}, workers={"count": 2, "memory": "8MiB"}, backend=LIMITED)
    assert summary.status == "succeeded", summary.error
    assert summary.allocation["memory_mib"] == 1024
    assert summary.state_sha256 == undisturbed.state_sha256


def test_a_later_session_begins_with_what_is_known_to_be_needed(runs: Runs, undisturbed: Summary) -> None:
    failing = {**NEEDY, "params": {**NEEDY["params"], "fail_at": 12}}
    assert runs.train(job=failing, backend=LIMITED).status == "failed"
    summary = runs.train(job=NEEDY, backend=LIMITED)
    assert (summary.status, summary.allocation["memory_mib"]) == ("succeeded", 2048)
    assert [event.kind for event in runs.events].count("memory_raised") == 0
    assert summary.state_sha256 == undisturbed.state_sha256
    logged = [event.kind for _, event in read_events(runs.store("needy"))]
    assert logged.count("memory_raised") == 1


def test_one_that_is_told_another_size_begins_with_that(runs: Runs) -> None:
    failing = {**NEEDY, "params": {**NEEDY["params"], "fail_at": 12}}
    assert runs.train(job=failing, backend=LIMITED).status == "failed"
    runs.train(job=NEEDY, workers={"count": 2, "memory": "4GiB"}, backend=LIMITED)
    launched = [event.data["memory_mib"] for event in runs.events if event.kind == "launched"]
    assert launched == [4096, 4096]


def test_where_nothing_is_enforced_more_of_it_would_not_help(runs: Runs) -> None:
    summary = runs.train(job={"params": {"needs_at": 3, "needs_mib": TOO_MUCH >> 20}})
    assert (summary.status, summary.stop_reason) == ("failed", "out of memory")
    assert isinstance(summary.failure(), OutOfMemory)
    assert "all workers share the memory of this machine" in summary.error["message"]
