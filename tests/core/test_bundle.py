"""The task's files: found by the user's words, and packed."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from smlt.core.bundle import TaskSource, find_task, frameworks_of, pack_bundle
from smlt.core.errors import ConfigError

TASK = "class Digits:\n    pass\n"


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def packed(folder: Path, task: str = "task.py:Digits", include: tuple[str, ...] = ("*",)) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(pack_bundle(find_task(task, folder), include))) as archive:
        return archive.namelist()


# Finding


def test_a_file_in_no_package_is_a_module_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, {"task.py": TASK})
    root = tmp_path.resolve()
    assert find_task("task.py:Digits", tmp_path) == TaskSource(root, root, "smlt_task.task", "Digits", root / "task.py")


@pytest.mark.parametrize(
    ("task", "module", "file"),
    [
        ("pkg/sub/task.py:Digits", "pkg.sub.task", "pkg/sub/task.py"),
        ("pkg.sub.task:Digits", "pkg.sub.task", "pkg/sub/task.py"),
        ("pkg/__init__.py:Digits", "pkg", "pkg/__init__.py"),
        ("pkg:Digits", "pkg", "pkg/__init__.py"),
        ("pkg.sub:Digits", "pkg.sub", "pkg/sub/__init__.py"),
    ],
)
def test_a_file_in_a_package_travels_with_all_of_it(tmp_path: Path, task: str, module: str, file: str) -> None:
    write(tmp_path, dict.fromkeys(("pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/task.py"), TASK))
    root = tmp_path.resolve()
    assert find_task(task, tmp_path) == TaskSource(root / "pkg", root, module, "Digits", root / file)


def test_a_package_is_found_from_inside_it(tmp_path: Path) -> None:
    write(tmp_path, {"pkg/__init__.py": "", "pkg/task.py": TASK})
    found = find_task("task.py:Digits", tmp_path / "pkg")
    assert (found.module, found.base) == ("pkg.task", tmp_path.resolve())


def test_an_absolute_path_is_a_path(tmp_path: Path) -> None:
    write(tmp_path, {"here/task.py": TASK})
    found = find_task(f"{tmp_path}/here/task.py:Digits", Path.cwd())
    assert found.file == (tmp_path / "here" / "task.py").resolve()


@pytest.mark.parametrize(
    "source",
    [
        "from elsewhere import Digits",
        "import elsewhere as Digits",
        "Digits = make()",
        "try:\n    import fast\n    class Digits: pass\nexcept ImportError:\n    pass",
        "if True:\n    pass\nelse:\n    class Digits: pass",
        "from elsewhere import *",
        "def Digits(): ...",
    ],
)
def test_a_name_may_come_from_anywhere(tmp_path: Path, source: str) -> None:
    write(tmp_path, {"task.py": source})
    assert find_task("task.py:Digits", tmp_path).class_name == "Digits"


@pytest.mark.parametrize("task", ["task.py", "task.py:", ":Digits", "task.py:Dig its", "", ":", "task.py:Digits.Inner"])
def test_what_names_no_class_is_refused_with_an_example(tmp_path: Path, task: str) -> None:
    write(tmp_path, {"task.py": TASK})
    with pytest.raises(ConfigError, match="names no class") as caught:
        find_task(task, tmp_path)
    assert "task.py:Digits" in caught.value.hint


def test_a_missing_file_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path, {"train.py": TASK, "other.py": ""})
    with pytest.raises(ConfigError, match="no file") as caught:
        find_task("trian.py:Digits", tmp_path)
    assert str(tmp_path / "trian.py") in caught.value.message
    assert caught.value.hint == "did you mean 'train.py'?"
    with pytest.raises(ConfigError, match="no file") as caught:
        find_task("pkg.task:Digits", tmp_path)
    assert "current folder" in caught.value.hint


def test_a_missing_class_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path, {"task.py": TASK + "class Letters: pass\n"})
    with pytest.raises(ConfigError, match="has no class 'Digit'") as caught:
        find_task("task.py:Digit", tmp_path)
    assert caught.value.hint == "did you mean 'Digits'?"
    with pytest.raises(ConfigError) as caught:
        find_task("task.py:Xyz", tmp_path)
    assert caught.value.hint == "known: Digits, Letters"


@pytest.mark.parametrize(
    ("source", "line"),
    [("import os\n\nclass Digits(\n", 3), ("class Digits:\n  x = 1\n   y = 2\n", 3), ("x = 1\n\x00\n", " ")],
)
def test_a_file_that_does_not_parse_is_told_with_its_line(tmp_path: Path, source: str, line: int | str) -> None:
    write(tmp_path, {"task.py": source})
    with pytest.raises(ConfigError) as caught:
        find_task("task.py:Digits", tmp_path)
    assert f"task.py:{line}" in caught.value.message


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"task.py": b"name = 'caf\xe9'\n" + TASK.encode()})
    with pytest.raises(ConfigError, match=r"task\.py"):
        find_task("task.py:Digits", tmp_path)


def test_a_file_may_state_its_encoding(tmp_path: Path) -> None:
    write(tmp_path, {"task.py": b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + TASK.encode()})
    assert find_task("task.py:Digits", tmp_path).class_name == "Digits"


# Frameworks


@pytest.mark.parametrize(
    ("source", "beside", "frameworks"),
    [
        ("from smlt.frameworks.torch import TorchTask", "", ("torch",)),
        ("from smlt.frameworks.keras import KerasTask", "", ("tensorflow",)),
        ("if True:\n    import smlt.frameworks.jax", "", ("jax",)),
        ("from base import Base", "from smlt.frameworks.torch import TorchTask", ("torch",)),
        ("from smlt.frameworks.keras import K", "from smlt.frameworks.torch import T", ("tensorflow", "torch")),
        ("# from smlt.frameworks.torch import TorchTask", "import torch", ()),
        ("from smlt.frameworks.unknown import X", "", ()),
    ],
)
def test_frameworks_are_seen_in_the_files(tmp_path: Path, source: str, beside: str, frameworks: object) -> None:
    write(tmp_path, {"task.py": f"{source}\n{TASK}", "base.py": beside})
    assert frameworks_of(find_task("task.py:Digits", tmp_path)) == frameworks


def test_a_neighbour_that_cannot_be_read_as_text_is_no_matter(tmp_path: Path) -> None:
    source = f"from smlt.frameworks.torch import TorchTask\n{TASK}"
    write(tmp_path, {"task.py": source, "old.py": b"# caf\xe9\n", "folder.py/x": ""})
    assert frameworks_of(find_task("task.py:Digits", tmp_path)) == ("torch",)


# Packing


def test_all_files_travel_but_hidden_compiled_and_ignored_ones(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "task.py": TASK, "helper.py": "", "data/words.txt": "a", "data/deep/more.bin": b"\xff", "notes.md": "",
            ".env": "", ".git/config": "", ".smlt/runs/x/model": "", "__pycache__/task.pyc": "", "x.pyc": "",
            "big/model.bin": "", "data/raw/huge.csv": "", "my.egg-info/PKG-INFO": "",
            ".smltignore": "# what stays here\n\nbig/\n*.csv\nnotes.md\n",
        },
    )  # fmt: skip
    assert packed(tmp_path) == ["helper.py", "task.py", "data/words.txt", "data/deep/more.bin"]


def test_include_narrows_what_travels_but_never_loses_the_task(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(("task.py", "a.py", "data/x.txt", "data/y.bin", "z.txt"), TASK))
    assert packed(tmp_path, include=("data/*",)) == ["task.py", "data/x.txt", "data/y.bin"]
    assert packed(tmp_path, include=("*.txt",)) == ["task.py", "z.txt", "data/x.txt"]
    assert packed(tmp_path, include=()) == ["task.py"]


def test_a_package_travels_from_its_top_and_nothing_beside_it(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(("pkg/__init__.py", "pkg/util.py", "pkg/sub/__init__.py", "pkg/sub/task.py"), TASK))
    write(tmp_path, {"beside.py": "", "pkg/.smltignore": "util.py\n"})
    names = ["pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/task.py"]
    assert packed(tmp_path, "pkg.sub.task:Digits") == names


def test_the_bytes_depend_on_nothing_but_the_files(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"task.py": TASK, "a/b.txt": "x" * 1000, "c.txt": ""}
    one = write(tmp_path / "one", files)
    other = write(tmp_path / "other", dict(reversed(files.items())))
    for path in other.rglob("*.*"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    bundles = [pack_bundle(find_task("task.py:Digits", folder), ("*",)) for folder in (one, other)]
    assert bundles[0] == bundles[1]
    write(other, {"c.txt": "!"})
    assert pack_bundle(find_task("task.py:Digits", other), ("*",)) != bundles[0]


def test_too_much_is_refused_with_the_largest_files(tmp_path: Path) -> None:
    write(tmp_path, {"task.py": TASK, "small.txt": "x"})
    for name, mib in (("a.bin", 40), ("b.bin", 25)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(mib * 2**20)
    with pytest.raises(ConfigError, match=r"over 64\.0 MiB: a\.bin \(40\.0 MiB\), b\.bin \(25\.0 MiB\)") as caught:
        packed(tmp_path)
    assert ".smltignore" in caught.value.hint
    assert packed(tmp_path, include=("*.txt",)) == ["small.txt", "task.py"]


def test_a_virtual_environment_never_travels(tmp_path: Path) -> None:
    files = {"task.py": TASK, "venv/pyvenv.cfg": "home = x", "venv/lib/big.py": "1", "lib/own.py": "2"}
    assert sorted(packed(write(tmp_path, files))) == ["lib/own.py", "task.py"]
