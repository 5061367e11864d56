"""The Lithops launcher: the same contract on Lithops' localhost, and nothing of the user's read, written or left."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import smlt
from smlt.backends.lithops.backend import LithopsBackend, LithopsOptions
from smlt.backends.lithops_launcher import LithopsLauncher, private_folders
from smlt.core.backend import FunctionState, Launcher, Phase, RankSpec, RunPlace
from smlt.core.errors import CloudError
from smlt.testing.backend import TimeLimitContract, eventually, spec_for
from tests.support import launching as functions
from tests.support.launching import engine, entry_of, is_running, wait_gone, wait_note, wait_over

BACKEND = LithopsBackend("lithops", LithopsOptions())


class TestLithopsBackend(TimeLimitContract):
    def make_backend(self):
        return BACKEND

    def make_launcher(self, backend, place, entry):
        return LithopsLauncher(place, entry)


@pytest.fixture
def place(tmp_path) -> RunPlace:
    return RunPlace("run", tmp_path / "runs", threads=2)


@pytest.fixture
def spec(place, tmp_path) -> RankSpec:
    return replace(spec_for(BACKEND, place, ""), scratch=str(tmp_path))


@pytest.fixture
def launching(place, monkeypatch) -> Iterator[Callable[..., Launcher]]:
    """`launching(function)`: a launcher of that function, closed after the test; then nothing is left."""
    monkeypatch.setenv("PYTHONPATH", str(functions.ROOT))
    launchers: list[LithopsLauncher] = []

    def launching(function) -> Launcher:
        launchers.append(LithopsLauncher(place, entry_of(function)))
        return launchers[-1]

    yield launching
    for launcher in launchers:
        launcher.close()
    assert psutil.Process().children(recursive=True) == []
    assert not private_folders(place).exists()


def everything_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_users_lithops_is_neither_read_nor_written(launching, spec, tmp_path, monkeypatch):
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    (home / ".lithops").mkdir(parents=True)
    (home / ".lithops" / "config").write_text("lithops:\n  backend: no_such_backend\n")
    temporary.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("LITHOPS_CONFIG", '{"lithops": {"backend": "no_such_backend"}}')
    monkeypatch.setenv("LITHOPS_CONFIG_FILE", str(home / ".lithops" / "config"))
    before = everything_below(home)
    launcher = launching(functions.look_around)
    handle = launcher.launch(spec)
    assert wait_over(launcher, handle).phase is Phase.ENDED, launcher.logs(handle)
    facts = ast.literal_eval(wait_note(spec, "facts"))
    assert (facts["home"], facts["temporary"]) == (str(home), str(temporary))  # the task's own are the user's
    launcher.close()
    assert everything_below(home) == before
    assert everything_below(temporary) == {}


def test_a_function_has_its_own_session_threads_and_log(launching, spec):
    launcher = launching(functions.look_around)
    handle = launcher.launch(spec)
    assert wait_over(launcher, handle).phase is Phase.ENDED, launcher.logs(handle)
    facts = ast.literal_eval(wait_note(spec, "facts"))
    assert (facts["input"], facts["threads"], facts["leads its session"]) == ("", "2", True)
    assert launcher.logs(handle) == "from below\n"


def test_what_lithops_keeps_holds_no_secret(launching, spec, place, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
    launcher = launching(functions.stay)
    launcher.launch(spec)
    wait_note(spec, "rank0")
    kept = everything_below(private_folders(place))
    assert kept
    assert not [path for path, content in kept.items() if b"sesame" in content]


def test_what_a_function_started_is_stopped_with_it(launching, spec):
    launcher = launching(functions.wait_for_a_child)
    handle = launcher.launch(spec)
    child = int(wait_note(spec, "child"))
    assert is_running(child)
    launcher.stop(handle)
    wait_gone(child)


def test_a_function_whose_lithops_process_was_killed_is_lost_and_gone(launching, spec):
    launcher = launching(functions.stay)
    handle = launcher.launch(spec)
    pid = int(wait_note(spec, "rank0"))
    psutil.Process(pid).parent().kill()
    assert wait_over(launcher, handle).phase is Phase.LOST
    wait_gone(pid)


def test_functions_of_a_killed_lithops_are_lost_and_the_next_one_has_another(launching, spec):
    launcher = launching(functions.stay)
    handle = launcher.launch(spec)
    pid = int(wait_note(spec, "rank0"))
    psutil.Process().children()[0].kill()
    assert wait_over(launcher, handle) == FunctionState(Phase.LOST, "its server was killed")
    wait_gone(pid)
    launcher.launch(replace(spec, rank=1))
    wait_note(spec, "rank1")


def test_a_lithops_that_cannot_start_is_an_error_of_ours(launching, place, spec, monkeypatch, tmp_path):
    (tmp_path / "lithops.py").write_text("raise ImportError('no Lithops here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    launcher = launching(functions.stay)
    with pytest.raises(CloudError, match="no Lithops here") as caught:
        wait_over(launcher, launcher.launch(spec))
    assert "lithops.host.txt" in caught.value.hint


def test_without_an_engine_nothing_is_left(place, spec):
    stubborn = replace(spec, orphan_grace_s=0.2)
    with engine(LithopsLauncher, place.runs_dir, functions.stay, stubborn, replace(stubborn, rank=1)) as process:
        pids = {int(wait_note(spec, name)) for name in ("rank0", "rank1")}
        everyone = {child.pid for child in process.children(recursive=True)}
        assert everyone > pids
        process.kill()
        wait_gone(*everyone)
    eventually(lambda: not private_folders(place).exists(), 10, "Lithops' folder is gone")


def test_cleaning_removes_what_was_left_when_everything_was_killed_at_once(place):
    (private_folders(place) / "run-1" / "marks").mkdir(parents=True)
    assert str(private_folders(place)) in BACKEND.clean(place)
    assert not private_folders(place).exists()
    assert BACKEND.clean(place) == []


def test_a_job_comes_to_the_same_bits_as_on_the_local_backend(place):
    results = {
        backend: smlt.train(
            f"{functions.ROOT / 'tests' / 'support' / 'linear.py'}:Linear",
            name=backend,
            backend=backend,
            workers=2,
            epochs=2,
            global_batch=32,
            runs_dir=place.runs_dir,
        )
        for backend in ("local", "lithops")
    }
    assert {result.status for result in results.values()} == {"succeeded"}
    assert results["lithops"].summary.state_sha256 == results["local"].summary.state_sha256
    assert psutil.Process().children(recursive=True) == []
    assert not private_folders(replace(place, run="lithops")).exists()
