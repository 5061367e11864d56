"""Folders that are in use, and those that nobody uses any more."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from smlt.bench.folders import PREFIX, fresh_folder, sweep


def test_a_folder_is_removed_however_it_is_left(tmp_path: Path):
    def be_interrupted() -> None:
        with fresh_folder(tmp_path) as folder:
            (folder / "file").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_takes_what_nobody_uses_once_it_was_cleaned(tmp_path: Path):
    left = tmp_path / f"{PREFIX}left"
    (left / "deep").mkdir(parents=True)
    seen: list[bool] = []
    with fresh_folder(tmp_path) as used:
        assert sweep([tmp_path, tmp_path / "nowhere"], lambda folder: seen.append(folder.is_dir())) == [left]
        assert list(tmp_path.iterdir()) == [used]
    assert seen == [True]


def test_a_sweep_leaves_other_things_and_what_belongs_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}file").touch()
    assert sweep([tmp_path], lambda folder: None) == []
    (tmp_path / f"{PREFIX}theirs").mkdir()
    monkeypatch.setattr("os.getuid", lambda: -1)
    assert sweep([tmp_path], lambda folder: None) == []
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_that_a_sweep_took_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flock, taken = fcntl.flock, []

    def be_slow(lock: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not taken:
            taken.extend(sweep([tmp_path], lambda folder: None))
        flock(lock, operation)

    monkeypatch.setattr("fcntl.flock", be_slow)
    with fresh_folder(tmp_path) as folder:
        assert len(taken) == 1
        assert list(tmp_path.iterdir()) == [folder]
