"""The process launcher: the contract, and what only processes of this machine can promise."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from smlt.backends.local.backend import LocalBackend, LocalOptions, cores
from smlt.backends.process_launcher import ProcessLauncher
from smlt.core.backend import FunctionState, Phase, RankSpec, RunPlace
from smlt.core.errors import JobFailed, PluginError
from smlt.testing.backend import TimeLimitContract, eventually, spec_for
from tests.support import launching as functions
from tests.support.launching import engine, entry_of, is_running, wait_gone, wait_note, wait_over

BACKEND = LocalBackend("local", LocalOptions())


class TestLocalBackend(TimeLimitContract):
    def make_backend(self):
        return BACKEND

    def make_launcher(self, backend, place, entry):
        return ProcessLauncher(place, entry)

    def test_worker_threads_of_the_user_win_over_an_equal_share(self):
        assert LocalBackend("local", LocalOptions(worker_threads=3)).threads_for(64) == 3

    def test_a_made_up_price_is_in_the_catalog(self):
        catalog = LocalBackend("local", LocalOptions(usd_per_gib_s=0.01)).catalog
        assert (catalog.function.usd_per_gib_s, catalog.source) == (0.01, "the option usd_per_gib_s")

    @pytest.mark.parametrize(("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
    def test_cores_are_those_of_the_container(self, tmp_path, quota, expected):
        file = tmp_path / "cpu.max"
        file.write_text(quota)
        assert cores(file) == (expected or cores(tmp_path / "none"))

    def test_a_time_limit_is_read_with_its_unit(self):
        options = LocalOptions.model_validate({"function_time_limit": "20s"})
        assert LocalBackend("local", options).limits.function_time_limit_s == 20.0


@pytest.fixture
def place(tmp_path) -> RunPlace:
    return RunPlace("run", tmp_path / "runs", preload=("colorsys",), threads=2)


@pytest.fixture
def spec(place, tmp_path) -> RankSpec:
    return replace(spec_for(BACKEND, place, ""), scratch=str(tmp_path))


@pytest.fixture
def launching(place, monkeypatch) -> Iterator:
    """`launching(function)`: a launcher of that function, closed after the test; then no process is left."""
    monkeypatch.setenv("PYTHONPATH", str(functions.ROOT))
    launchers: list[ProcessLauncher] = []

    def launching(function, place=place) -> ProcessLauncher:
        launchers.append(ProcessLauncher(place, entry_of(function)))
        return launchers[-1]

    yield launching
    for launcher in launchers:
        launcher.close()
    assert psutil.Process().children(recursive=True) == []


def test_a_function_is_a_process_apart_with_the_framework_imported_and_nothing_open(launching, spec):
    launcher = launching(functions.look_around)
    handle = launcher.launch(spec)
    assert wait_over(launcher, handle).phase is Phase.ENDED, launcher.logs(handle)
    facts = ast.literal_eval(wait_note(spec, "facts"))
    assert facts["descriptors"] == [0, 1, 2, 3]  # the last is the one that lists them
    assert facts["preloaded"]
    assert facts["input"] == ""
    assert facts["leads its session"]  # Ctrl-C in the terminal reaches the engine only
    assert facts["threads"] == "2"
    assert launcher.logs(handle) == "from below\n"


def test_a_module_that_cannot_be_imported_ahead_is_named(launching, place, spec):
    launcher = launching(functions.stay, replace(place, preload=("no_such_framework",)))
    handle = launcher.launch(spec)
    with pytest.raises(PluginError, match="cannot import no_such_framework"):
        wait_over(launcher, handle)


def test_a_framework_that_is_missing_comes_with_what_to_install(launching, place, spec, tmp_path, monkeypatch):
    (tmp_path / "jax.py").write_text("raise ModuleNotFoundError('no jax here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    launcher = launching(functions.stay, replace(place, preload=("jax",)))
    with pytest.raises(PluginError, match="no jax here") as caught:
        wait_over(launcher, launcher.launch(spec))
    assert caught.value.hint == "pip install 'smlt[jax]'"


def test_what_a_function_started_ends_with_it(launching, spec):
    launcher = launching(functions.leave_a_child)
    assert wait_over(launcher, launcher.launch(spec)).phase is Phase.ENDED
    wait_gone(int(wait_note(spec, "child")))


def test_what_a_function_started_is_stopped_with_it(launching, spec):
    launcher = launching(functions.wait_for_a_child)
    handle = launcher.launch(spec)
    child = int(wait_note(spec, "child"))
    assert is_running(child)
    launcher.stop(handle)
    wait_gone(child)


def test_launching_does_not_wait_for_a_busy_server_however_large_the_spec(launching, spec):
    launcher = launching(functions.stay)
    first = launcher.launch(replace(spec, rank=1))
    server = psutil.Process(int(wait_note(spec, "rank1"))).parent()
    server.suspend()
    handle = launcher.launch(replace(spec, task_payload=bytes(5_000_000)))
    assert launcher.poll([handle])[handle].phase is Phase.PENDING
    server.resume()
    eventually(lambda: launcher.poll([handle])[handle].phase is Phase.RUNNING, 30, "the function runs")
    assert launcher.poll([first])[first].phase is Phase.RUNNING


def test_functions_of_a_killed_server_are_lost_and_the_next_one_has_another(launching, spec):
    launcher = launching(functions.stay)
    handle = launcher.launch(spec)
    pid = int(wait_note(spec, "rank0"))
    psutil.Process(pid).parent().kill()
    assert wait_over(launcher, handle) == FunctionState(Phase.LOST, "its server was killed")
    wait_gone(pid)
    handle = launcher.launch(replace(spec, rank=1))
    wait_note(spec, "rank1")
    eventually(lambda: launcher.poll([handle])[handle].phase is Phase.RUNNING, 10, "the function runs")


def test_a_runs_folder_that_cannot_be_written_is_an_error_of_ours(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JobFailed, match="functions cannot be started"):
        ProcessLauncher(replace(place, runs_dir=tmp_path / "file"))


def test_an_unknown_handle_is_lost(launching):
    assert launching(functions.stay).poll(["5.6.7"])["5.6.7"].phase is Phase.LOST


def test_states_outlive_the_launcher_and_it_may_be_closed_twice(launching, spec):
    launcher = launching(functions.stay)
    handle = launcher.launch(spec)
    wait_note(spec, "rank0")
    launcher.close()
    launcher.close()
    assert launcher.poll([handle])[handle] == FunctionState(Phase.LOST, "stopped")


def test_without_an_engine_functions_that_stay_are_killed_after_their_grace(place, spec):
    stubborn = replace(spec, orphan_grace_s=0.2)
    with engine(ProcessLauncher, place.runs_dir, functions.stay, stubborn, replace(stubborn, rank=1)) as process:
        pids = [int(wait_note(spec, name)) for name in ("rank0", "rank1")]
        everyone = process.children(recursive=True)
        assert {child.pid for child in everyone} > set(pids)
        process.kill()
        wait_gone(*(child.pid for child in everyone))


def test_without_an_engine_functions_may_leave_by_themselves(place, spec):
    with engine(
        ProcessLauncher, place.runs_dir, functions.leave_when_told, replace(spec, orphan_grace_s=60.0)
    ) as process:
        wait_note(spec, "rank0")
        everyone = process.children(recursive=True)
        process.kill()
        wait_gone(process.pid)
        Path(spec.scratch, "leave").touch()
        wait_note(spec, "left")
        wait_gone(*(child.pid for child in everyone))


def adopting(launching, place, *labels):
    """The launcher of a controller that comes after one that was killed, and what it could adopt."""
    launcher = launching(functions.stay, place)
    return launcher, launcher.adopt(labels)


@pytest.mark.parametrize("folder", ["runs", "r" * 120])
def test_another_launcher_goes_on_with_the_functions_of_a_killed_engine(launching, place, spec, tmp_path, folder):
    """However long the path of the runs folder is; and their time limit still holds."""
    place = replace(place, runs_dir=tmp_path / folder)
    patient, limited = replace(spec, orphan_grace_s=60.0), replace(spec, rank=1, orphan_grace_s=60.0, time_limit_s=12.0)
    with engine(ProcessLauncher, place.runs_dir, functions.stay, patient, limited) as process:
        pids = [int(wait_note(spec, name)) for name in ("rank0", "rank1")]
        process.kill()
        wait_gone(process.pid)
    launcher, handles = adopting(launching, place, patient.label, limited.label, "9.9.9")
    assert set(handles) == {patient.label, limited.label, "9.9.9"}
    phases = [state.phase for state in launcher.poll([handles[label] for label in handles]).values()]
    assert phases == [Phase.RUNNING, Phase.RUNNING, Phase.LOST]
    launcher.stop(handles[patient.label])
    assert launcher.poll([handles[patient.label]])[handles[patient.label]].phase is Phase.LOST
    assert not is_running(pids[0])
    third = launcher.launch(replace(spec, rank=2))
    wait_note(spec, "rank2")
    assert launcher.poll([third])[third].phase is Phase.RUNNING
    assert wait_over(launcher, handles[limited.label]).detail.startswith("killed at its time limit")
    launcher.close()
    assert list((place.runs_dir / "run" / ".unlisted" / "launchers").iterdir()) == []


def test_the_server_of_an_engine_that_lives_is_left_alone(launching, place, spec):
    with engine(ProcessLauncher, place.runs_dir, functions.stay, spec) as process:
        pid = int(wait_note(spec, "rank0"))
        _, handles = adopting(launching, place, spec.label)
        assert handles == {}
        assert is_running(pid)
        process.kill()
        wait_gone(pid)


def test_where_all_have_left_there_is_nothing_to_adopt(launching, place, spec):
    with engine(ProcessLauncher, place.runs_dir, functions.leave_when_told, spec) as process:
        wait_note(spec, "rank0")
        everyone = process.children(recursive=True)
        process.kill()
        Path(spec.scratch, "leave").touch()
        wait_gone(*(child.pid for child in everyone))
    launcher, handles = adopting(launching, place, spec.label)
    assert handles == {}
    own = launcher.launch(replace(spec, rank=1))
    wait_note(spec, "rank1")
    assert launcher.poll([own])[own].phase is Phase.RUNNING


def test_a_server_with_nothing_to_do_ends_with_its_engine(place):
    with engine(ProcessLauncher, place.runs_dir, functions.stay) as process:
        eventually(lambda: len(process.children()) == 1, 30, "the server is there")
        server = process.children()[0].pid
        process.kill()
        wait_gone(server)


def test_a_server_whose_engine_was_killed_while_it_imported_starts_nothing(place, spec):
    with engine(ProcessLauncher, place.runs_dir, functions.stay, replace(spec, orphan_grace_s=60.0)) as process:
        eventually(lambda: len(process.children()) == 1, 30, "the server is there")
        server = process.children()[0]
        server.suspend()
        process.kill()
        wait_gone(process.pid)
        server.resume()
        wait_gone(server.pid)
    assert not Path(spec.scratch, "rank0").exists()


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_a_server_with_a_framework_imported_has_one_thread_and_may_fork(launching, place, spec, framework):
    launcher = launching(functions.stay, replace(place, preload=(framework,)))
    launcher.launch(spec)
    server = psutil.Process(int(wait_note(spec, "rank0"))).parent()
    assert server.num_threads() == 1
