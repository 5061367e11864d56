"""Sizes that are kept: for just the same code and settings, and not for long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smlt.core.job import JobSpec
from smlt.core.parcel import TaskParcel
from smlt.core.profile_cache import KEPT_S, ProfileCache
from tests.support.scenes import GUESSED

SPEC = JobSpec.from_plain({"job": {"task": "task.py:Net", "epochs": 1}})
PARCEL = TaskParcel("task.py:Net", (), bundle=b"code", module="task", class_name="Net")


@pytest.fixture
def cache(tmp_path) -> ProfileCache:
    found = ProfileCache(tmp_path / "profiles")
    found.keep(SPEC, PARCEL, GUESSED)
    return found


def after(cache: ProfileCache, seconds: float) -> ProfileCache:
    """The same folder so much later."""
    return replace(cache, clock=lambda: cache.clock() + seconds)


def test_what_was_kept_is_found_with_its_age(cache) -> None:
    found = after(cache, 60).find(SPEC, PARCEL)
    assert found is not None
    profile, age_s = found
    assert profile == GUESSED
    assert age_s == pytest.approx(60, abs=30)


def test_other_code_and_other_settings_are_not_the_same(cache) -> None:
    assert cache.find(SPEC, replace(PARCEL, bundle=b"other")) is None
    for job in ({"params": {"width": 3}}, {"seed": 7}, {"task": "task.py:Other"}):
        other = JobSpec.from_plain({"job": {"task": "task.py:Net", "epochs": 1, **job}})
        assert cache.find(other, PARCEL) is None
    longer = JobSpec.from_plain({"job": {"task": "task.py:Net", "epochs": 9}})
    assert cache.find(longer, PARCEL) is not None


def test_nothing_is_kept_for_long_and_what_is_old_is_removed(cache) -> None:
    later = after(cache, KEPT_S + 60)
    assert later.find(SPEC, PARCEL) is None
    later.keep(SPEC, replace(PARCEL, bundle=b"other"), GUESSED)
    assert len(list(cache.folder.iterdir())) == 1


def test_what_cannot_be_read_or_written_is_as_if_it_were_not_there(cache, tmp_path) -> None:
    for file in cache.folder.iterdir():
        file.write_text("{}")
    assert cache.find(SPEC, PARCEL) is None
    (tmp_path / "file").write_text("")
    nowhere = ProfileCache(tmp_path / "file" / "profiles")
    nowhere.keep(SPEC, PARCEL, GUESSED)
    assert nowhere.find(SPEC, PARCEL) is None
