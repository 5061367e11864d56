"""The task in a worker: unpacked, imported, made, and given what travelled with it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from smlt.core import layout
from smlt.core.backend import RankSpec
from smlt.core.bundle import find_task, pack_bundle, unpack_bundle
from smlt.core.errors import TaskError
from smlt.core.job import JobSpec
from smlt.core.parcel import make_parcel
from smlt.core.task import UserTask
from smlt.core.taskbuild import make_task, prepared_data
from tests.support.linear import Linear
from tests.support.specs import rank_spec
from tests.support.stores import DictStore

HEAD = "from smlt.core.task import UserTask\n"
TASK = "class Digits(UserTask):\n    framework = 'numpy'\n    def adapt(self):\n        return self\n"


@pytest.fixture(autouse=True)
def _own_imports() -> Iterator[None]:
    """What a task imports is gone afterwards, as with a worker's process."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


class Place:
    """A user's folder, and the store and scratch folder of a run."""

    def __init__(self, folder: Path) -> None:
        self.user, self.scratch, self.store = folder / "user", folder / "scratch", DictStore()

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.user / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def spec(self, task: str, **job: object) -> tuple[RankSpec, JobSpec]:
        spec = JobSpec.model_validate({"job": {"task": task, **job}})
        parcel = make_parcel(spec, self.user, self.scratch, None)
        self.store.put(layout.CODE, parcel.bundle)
        ranked = rank_spec(
            rank=1,
            world_size=3,
            bundle_sha256=parcel.sha256,
            task_module=parcel.module,
            task_class=parcel.class_name,
            scratch=str(self.scratch),
        )
        return ranked, spec

    def make(self, task: str, **job: object) -> UserTask:
        made = make_task(*self.spec(task, **job), self.store)
        assert isinstance(made, UserTask)
        return made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "scratch").mkdir()
    return Place(tmp_path)


def test_a_task_is_given_what_the_job_says(place: Place) -> None:
    place.write({"task.py": HEAD + TASK})
    task = place.make("task.py:Digits", params={"lr": 0.5}, seed=7, secrets=["TOKEN"])
    assert (task.params, task.rank, task.world_size) == ({"lr": 0.5}, 1, 3)
    assert task.rng.integers(1000) == np.random.default_rng(7).integers(1000)
    assert task.context.secrets == ("TOKEN",)


@pytest.mark.parametrize("how", ["import helper", "from . import helper", "from helper import *; import helper"])
def test_a_loose_task_imports_its_neighbours_either_way(place: Place, how: str) -> None:
    place.write({"task.py": f"{HEAD}{how}\n{TASK}    answer = helper.answer\n", "helper.py": "answer = 42\n"})
    assert place.make("task.py:Digits").answer == 42


@pytest.mark.parametrize(
    "how", ["from .helper import answer", "from ..top import answer", "from pkg.top import answer", "import pkg.top"]
)
@pytest.mark.parametrize("task", ["pkg/sub/task.py:Digits", "pkg.sub.task:Digits"])
def test_a_task_in_a_package_imports_all_of_it(place: Place, how: str, task: str) -> None:
    place.write(
        {
            "pkg/__init__.py": "",
            "pkg/top.py": "answer = 42\n",
            "pkg/sub/__init__.py": "",
            "pkg/sub/helper.py": "answer = 42\n",
        }
    )
    place.write({"pkg/sub/task.py": f"{HEAD}{how}\n{TASK}"})
    assert type(place.make(task)).__module__ == "pkg.sub.task"


@pytest.mark.parametrize(
    ("task", "words"),
    [("task.py:Digits", "loose"), ("pkg/sub/task.py:Digits", "sub"), ("pkg:Digits", "pkg"), ("pkg.sub:Digits", "sub")],
)
def test_data_beside_the_task_s_file_travel_with_it(place: Place, task: str, words: str) -> None:
    files = ("task.py", "pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/task.py")
    place.write(dict.fromkeys(files, HEAD + TASK))
    place.write({"words.txt": "loose", "pkg/words.txt": "pkg", "pkg/sub/words.txt": "sub"})
    assert place.make(task).path("words.txt").read_text() == words


def test_a_file_that_did_not_travel_is_told(place: Place) -> None:
    place.write({"task.py": HEAD + TASK, "words.txt": "here"})
    task = place.make("task.py:Digits", include=["*.py"])
    with pytest.raises(TaskError, match=r"'words\.txt', which did not travel") as caught:
        task.path("words.txt")
    assert "[job].include" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("import not_there\n" + HEAD + TASK, "imports 'not_there', which is not there", "pip install not_there"),
        (HEAD + "1 / 0\n" + TASK, "importing the task failed: ZeroDivisionError: division by zero (task.py:2)", ""),
        (HEAD + "import helper\n" + TASK, "KeyError: 'x' (helper.py:2)", ""),
        ("class Digits:\n    pass\n", "'Digits' is not a task", "TorchTask"),
        (HEAD + "Digits = 7\n", "7 is not a task", "TorchTask"),
        (HEAD + TASK + "    def __init__(self, x): ...\n", "Digits() raised TypeError", "without arguments"),
    ],
)
def test_what_is_wrong_with_a_task_is_told(place: Place, source: str, message: str, hint: str) -> None:
    place.write({"task.py": source, "helper.py": "table = {}\ntable['x']\n"})
    with pytest.raises(TaskError) as caught:
        place.make("task.py:Digits")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_class_may_travel_as_it_is(place: Place) -> None:
    class Local(Linear):
        """Defined where no file could be named."""

    spec = JobSpec.model_validate({"job": {"task": "x:Local"}})
    ranked = rank_spec(task_payload=cloudpickle.dumps(Local), scratch=str(place.scratch))
    assert type(make_task(ranked, spec, place.store).user).__name__ == "Local"
    for payload, message in ((b"garbage", "does not load"), (cloudpickle.dumps(dict), "'dict' is not a task")):
        with pytest.raises(TaskError, match=message):
            make_task(rank_spec(task_payload=payload), spec, place.store)


def test_workers_of_one_machine_share_what_is_unpacked(place: Place) -> None:
    place.write({"task.py": HEAD + TASK})
    bundle = pack_bundle(find_task("task.py:Digits", place.user), ("*",))
    first = unpack_bundle(bundle, place.scratch)
    (first / "mark").touch()
    assert unpack_bundle(bundle, place.scratch) == first
    assert (first / "mark").exists()
    assert [path.name for path in place.scratch.iterdir()] == [first.name]


def test_a_worker_that_comes_second_leaves_nothing_of_its_own(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write({"task.py": HEAD + TASK})
    bundle = pack_bundle(find_task("task.py:Digits", place.user), ("*",))
    extract = zipfile.ZipFile.extractall

    def overtaken(archive: zipfile.ZipFile, folder: Path) -> None:
        monkeypatch.undo()
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 1)
            unpack_bundle(bundle, place.scratch)
        extract(archive, folder)

    monkeypatch.setattr(zipfile.ZipFile, "extractall", overtaken)
    target = unpack_bundle(bundle, place.scratch)
    assert [path.name for path in place.scratch.iterdir()] == [target.name]


def test_a_scratch_folder_that_cannot_be_written_is_told(place: Place) -> None:
    place.write({"task.py": HEAD + TASK, "scratch.txt": "a file"})
    bundle = pack_bundle(find_task("task.py:Digits", place.user), ("*",))
    with pytest.raises(TaskError, match="cannot unpack the task's files"):
        unpack_bundle(bundle, place.user / "scratch.txt")


def test_a_fresh_process_imports_a_bundle(place: Place) -> None:
    """None of what this process has imported or has on its path is needed."""
    place.write({"task.py": f"{HEAD}from .helper import answer\nimport helper\n{TASK}", "helper.py": "answer = 42\n"})
    bundle = pack_bundle(find_task("task.py:Digits", place.user), ("*",))
    code = (
        "import sys; from pathlib import Path; from smlt.core.bundle import import_task, unpack_bundle\n"
        "found = import_task(unpack_bundle(sys.stdin.buffer.read(), Path(sys.argv[1])), 'smlt_task.task', 'Digits')\n"
        "print(found.__module__, sys.modules['smlt_task.helper'].answer)"
    )
    command = [sys.executable, "-P", "-c", code, str(place.scratch)]
    done = subprocess.run(command, input=bundle, capture_output=True, check=True, cwd=place.scratch)
    assert done.stdout.decode().split() == ["smlt_task.task", "42"]


# Data that are prepared once


class Prepares:
    """Counts how often it prepares."""

    times = 0

    def prepare(self) -> dict[str, np.ndarray]:
        self.times += 1
        return {"x": np.arange(3.0)}


def test_data_are_prepared_once_a_run_by_rank_0(place: Place) -> None:
    task = Prepares()
    waits = 0

    def wait() -> None:
        nonlocal waits
        waits += 1
        prepared_data(task, rank_spec(rank=0), place.store, pytest.fail)

    for rank in (1, 0, 2):
        found = prepared_data(task, rank_spec(rank=rank), place.store, wait)
        assert found["x"].tolist() == [0.0, 1.0, 2.0]
    assert (task.times, waits) == (1, 1)


def test_waiting_for_prepared_data_ends_when_it_is_given_up(place: Place) -> None:
    def give_up() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        prepared_data(Prepares(), rank_spec(rank=1), place.store, give_up)
