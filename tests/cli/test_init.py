from __future__ import annotations

import ast
import tomllib

import pytest


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_folder_with_settings_and_a_task(main, folder, framework):
    code, out, _ = main("init", "some/spirals", "--framework", framework)
    assert code == 0
    assert "cd some/spirals" in out
    task = (folder / "some/spirals/task.py").read_text()
    assert f"smlt.frameworks.{framework}" in task
    ast.parse(task)
    job = tomllib.loads((folder / "some/spirals/smlt.toml").read_text())["job"]
    assert job["task"] == "task.py:Spirals"


def test_what_is_printed_can_be_pasted(main, folder):
    assert "  cd 'my folder/x'\n" in main("init", "my folder/x")[1]


def test_the_settings_are_valid_as_they_are_and_with_the_examples_in_comments(main, folder):
    main("init", ".")
    assert main("config", "show")[0] == 0
    _, *lines = (folder / "smlt.toml").read_text().splitlines()
    (folder / "smlt.toml").write_text("\n".join(line.removeprefix("# ") for line in lines))
    code, out, err = main("config", "show")
    assert (code, err) == (0, "")
    assert "1800s" in out


def test_the_current_folder(main, folder):
    code, out, _ = main("init", ".")
    assert code == 0
    assert "cd " not in out
    assert (folder / "task.py").is_file()


@pytest.mark.parametrize("file", ["smlt.toml", "task.py"])
def test_nothing_is_overwritten(main, folder, file):
    (folder / "there").mkdir()
    (folder / "there" / file).write_text("mine")
    code, _, err = main("init", "there")
    assert code == 2
    assert f"there/{file} is there already" in err
    assert [item.name for item in (folder / "there").iterdir()] == [file]
    assert (folder / "there" / file).read_text() == "mine"


def test_a_folder_that_cannot_be_made(main, folder):
    (folder / "file").write_text("")
    code, _, err = main("init", "file/inside")
    assert code == 2
    assert "cannot write to file/inside: Not a directory" in err


def test_a_missing_framework_is_named(main, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'smlt[tensorflow]'" in main("init", "x", "--framework", "keras")[1]
