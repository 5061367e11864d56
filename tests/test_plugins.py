"""Plugins: what is found, what is left out and why, and a third party's wheel that brings a backend and a planner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from smlt.core.errors import PluginError
from smlt.core.plugins import GROUP, KINDS, Entry, hookimpl, load_registry

PROJECTS = Path(__file__).parent / "plugins"
OURS = [(kind, name) for kind in KINDS for name in load_registry().entries[kind]]


def in_process(code: str, *arguments: str, path: Path | None = None, cwd: Path | None = None) -> str:
    """What a fresh Python with this code prints, with `path` importable before all else."""
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Ours


def test_nothing_of_ours_is_left_out():
    registry = load_registry()
    assert registry.left_out == []
    assert {"local", "lithops"} <= set(registry.entries["backends"])
    assert {"file", "memory"} <= set(registry.entries["stores"])
    assert "shared_memory" in registry.entries["channels"]


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_what_we_offer_is_there(kind, name):
    assert callable(load_registry().load(kind, name))


def test_finding_plugins_imports_neither_an_sdk_nor_a_framework():
    heavy = ["torch", "tensorflow", "keras", "jax", "optuna", "lithops", "obstore", "boto3", "matplotlib"]
    code = "import sys; from smlt.core.plugins import load_registry; load_registry(); print(*sys.modules)"
    assert not set(heavy) & set(in_process(code).split())


# A stranger's, made up on the spot


@pytest.fixture
def plugin(monkeypatch):
    """`plugin(backends, **attributes)`: the entry point of a module that offers these backends."""

    def make(backends: dict[str, Entry], name: str = "stranger", **attributes: object) -> EntryPoint:
        module = ModuleType(name)
        module.smlt_backends = hookimpl(specname="smlt_backends")(lambda: backends)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
        return EntryPoint(name, name, GROUP)

    return make


def test_a_stranger_is_used_like_one_of_ours(plugin):
    point = plugin({"mapping": Entry("collections:OrderedDict")})
    assert load_registry(lambda: [point]).load("backends", "mapping").__name__ == "OrderedDict"


def test_an_unknown_name_comes_with_the_nearest_and_with_who_was_left_out(plugin):
    points = [plugin({"cloud": Entry("m:C")}), plugin({}, "ancient", api_version=(0, 9))]
    with pytest.raises(PluginError, match="no backend is called 'clowd'") as caught:
        load_registry(lambda: points).load("backends", "clowd")
    assert "did you mean 'cloud'?" in caught.value.hint
    assert "ancient" in caught.value.hint


def test_a_missing_extra_says_what_to_install(plugin):
    registry = load_registry(lambda: [plugin({"cloud": Entry("no_such_module:Cloud", extra="cloud")})])
    with pytest.raises(PluginError, match="no_such_module") as caught:
        registry.load("backends", "cloud")
    assert caught.value.hint == "pip install 'smlt[cloud]'"


def test_a_target_that_is_not_there_names_the_plugin(plugin):
    registry = load_registry(lambda: [plugin({"cloud": Entry("collections:Cloud")})])
    with pytest.raises(PluginError, match="collections has no Cloud") as caught:
        registry.load("backends", "cloud")
    assert "stranger" in caught.value.hint


def test_a_target_that_breaks_when_it_is_imported_names_the_plugin(plugin, tmp_path, monkeypatch):
    (tmp_path / "breaks_on_import.py").write_text("{}.no_such_thing")
    monkeypatch.syspath_prepend(tmp_path)
    registry = load_registry(lambda: [plugin({"cloud": Entry("breaks_on_import:Cloud")})])
    with pytest.raises(PluginError, match="'cloud' cannot be imported: AttributeError: 'dict'") as caught:
        registry.load("backends", "cloud")
    assert "stranger" in caught.value.hint


def test_a_newer_minor_is_used_with_a_warning(plugin):
    point = plugin({"cloud": Entry("collections:OrderedDict")}, api_version=(1, 99))
    with pytest.warns(UserWarning, match="plugin API 1.99"):
        registry = load_registry(lambda: [point])
    assert "cloud" in registry.entries["backends"]


def test_of_two_strangers_with_one_name_the_same_one_always_loses(plugin):
    points = [plugin({"cloud": Entry("a:A")}, "abel"), plugin({"cloud": Entry("b:B")}, "cain")]
    for order in (points, points[::-1]):
        registry = load_registry(lambda order=order: order)
        assert registry.owners["backends", "cloud"] == "abel"
        assert [item.plugin for item in registry.left_out] == ["cain"]


# A third party's wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which pip has installed the third party's projects, built from their sources."""
    folder = tmp_path_factory.mktemp("plugins")
    sources = []
    for project in ("acme", "misfits"):
        sources.append(str(shutil.copytree(PROJECTS / project, folder / "sources" / project)))
    target = folder / "installed"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--target",
        str(target),
    ]
    subprocess.run([*command, "--no-index", "--no-deps", "--no-build-isolation", *sources], check=True)
    return target


REGISTRY = """
import json
from dataclasses import asdict
from smlt.core.plugins import load_registry
registry = load_registry()
print(json.dumps({
    "offered": {kind: sorted(names) for kind, names in registry.entries.items()},
    "left_out": {item.plugin: item.reason for item in registry.left_out},
    "loaded": [registry.load("backends", "acme").__name__, registry.load("planners", "frugal").__name__],
}))
"""


def test_a_wheel_brings_a_backend_and_a_planner_and_misfits_are_named(installed):
    found = json.loads(in_process(REGISTRY, path=installed))
    assert found["loaded"] == ["AcmeBackend", "FrugalPlanner"]
    assert {"acme", "local", "lithops"} <= set(found["offered"]["backends"])
    assert not {"remote", "future", "misspelt"} & set(found["offered"]["backends"])
    left_out = found["left_out"]
    assert sorted(left_out) == ["misfits.broken", "misfits.duplicate", "misfits.misspelt", "misfits.too_new"]
    assert "packed in a hurry" in left_out["misfits.broken"]
    assert "'local'" in left_out["misfits.duplicate"]
    assert "smlt_backend" in left_out["misfits.misspelt"]
    assert "plugin API 2.0" in left_out["misfits.too_new"]


def test_the_third_partys_backend_keeps_the_published_contract(installed):
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "contract.py"]
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=PROJECTS / "acme")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_whole_job_runs_on_the_third_partys_backend_as_its_planner_says(installed, tmp_path):
    task = Path(__file__).parent / "support" / "linear.py"
    settings = ["--backend", "acme", "--set", "planner.name=frugal", "--set", "job.steps=5"]
    command = ["train", f"{task}:Linear", *settings, "--runs-dir", str(tmp_path), "-o", "json"]
    code = "import sys; from smlt.cli.main import main; sys.argv[0] = 'smlt'; main()"
    summary = json.loads(in_process(code, *command, path=installed, cwd=tmp_path))
    assert (summary["status"], summary["steps"]) == ("succeeded", 5)
    assert (summary["backend"], summary["planner"]) == ("acme", "frugal")
    assert summary["allocation"]["workers"] == 1
