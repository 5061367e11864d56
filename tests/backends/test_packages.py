"""What functions are given: smlt as it is here, what it needs in the versions that are here, and nothing more."""

import io
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.metadata import version

import pytest

import smlt
from smlt.backends.packages import Package, build_zip, required, smlt_files
from smlt.core.errors import CloudError

NOTHING = Package((), "x86_64", "python")


def test_versions_are_those_that_are_here():
    found = required(("torch",), ("scikit-learn>=1", "./my_plugin.whl"), ("tblib",), ())
    assert f"numpy=={version('numpy')}" in found
    assert f"torch=={version('torch').partition('+')[0]}" in found
    assert {"scikit-learn>=1", "./my_plugin.whl"} < set(found)


def test_what_is_preinstalled_is_left_out_however_it_is_written():
    found = required(("torch",), ("my_Package>=1",), ("tblib",), ("Torch", "numpy", "my-package"))
    assert not [line for line in found if line.lower().startswith(("torch", "numpy", "my"))]


def test_the_controllers_own_packages_stay_here():
    assert not {line.partition("==")[0] for line in required((), (), (), ())} & {"lithops", "optuna", "rich", "typer"}


def test_a_function_has_this_smlt_and_finds_its_plugins(tmp_path):
    folder = tmp_path / "installed"
    folder.mkdir()
    data = build_zip(NOTHING, folder, 1 << 30)
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    look = """
import sys; from pathlib import Path
sys.path.insert(0, sys.argv[1])
import smlt; from smlt.core.plugins import load_registry
print(Path(smlt.__file__).is_relative_to(sys.argv[1]), smlt.__version__, "s3" in load_registry().entries["stores"])
"""
    shown = subprocess.run([sys.executable, "-c", look, str(tmp_path / "python")], capture_output=True, text=True)
    assert shown.stdout.split() == ["True", smlt.__version__, "True"], shown.stderr


def test_the_same_files_are_the_same_bytes(tmp_path):
    first, second = (build_zip(NOTHING, tmp_path, 1 << 30) for _ in range(2))
    assert first == second


def test_nothing_that_python_compiled_travels():
    names = [name for name, _ in smlt_files()]
    assert "smlt/core/function.py" in names
    assert not [name for name in names if name.endswith(".pyc") or "__pycache__" in name]


def test_another_package_has_another_digest():
    digests = {
        NOTHING.digest,
        replace(NOTHING, architecture="arm64").digest,
        replace(NOTHING, requirements=("x",)).digest,
    }
    assert len(digests) == 3


def test_what_is_too_large_names_the_largest(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "lib.so").write_bytes(bytes(3 << 20))
    with pytest.raises(CloudError, match=r"torch \(3.0 MiB\)") as caught:
        build_zip(NOTHING, tmp_path, 2 << 20)
    assert "preinstalled" in caught.value.hint


def test_what_cannot_be_installed_is_named(tmp_path):
    package = replace(NOTHING, requirements=(f"{tmp_path}/nothing-1.0-py3-none-any.whl",))
    with pytest.raises(CloudError, match=r"nothing-1.0"):
        build_zip(package, tmp_path / "installed", 1 << 30)
