"""What is deployed is enough: a rank's modules import from it and from Lithops' own zip alone."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import lithops
import pytest

from smlt.backends.aws.backend import LITHOPS_NEEDS
from smlt.backends.aws.functions import LAYER_BYTES
from smlt.backends.packages import Package, build_zip, required

pytestmark = [pytest.mark.clouds, pytest.mark.timeout(600)]

IMPORTS = """
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + sys.argv[1:]
import lithops.worker.handler, lithops.worker.jobrunner, lithops.worker.utils
import smlt.backends.lithops.supervised, smlt.core.function
from smlt.core.plugins import load_registry
registry = load_registry()
assert not registry.left_out, registry.left_out
for kind in ("stores", "channels"):
    for name in registry.entries[kind]:
        registry.load(kind, name)
from smlt.core.storage import StoreSpec
registry.open_store(StoreSpec("s3", "s3://bucket/prefix", {"region": "eu-west-1"}))
import msgpack, smlt
print(smlt.__file__, msgpack.__file__)
"""


def test_what_is_deployed_imports_by_itself(tmp_path):
    folder, there = tmp_path / "installed", tmp_path / "there"
    data = build_zip(Package(required((), (), LITHOPS_NEEDS, ()), "x86_64", "python"), folder, LAYER_BYTES)
    zipfile.ZipFile(io.BytesIO(data)).extractall(there)
    handler = tmp_path / "handler"
    handler.mkdir()
    (handler / "lithops").symlink_to(Path(lithops.__file__).parent)
    command = [sys.executable, "-I", "-c", IMPORTS, str(handler), str(there / "python")]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert all(Path(path).is_relative_to(there) for path in shown.stdout.split())
    assert len(data) < LAYER_BYTES / 5
