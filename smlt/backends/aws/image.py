"""The image that functions run in where a zip has no room, as files to read and build."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from smlt.backends.packages import smlt_files
from smlt.core.backend import Recipe, RunPlace
from smlt.core.errors import PluginError

if TYPE_CHECKING:
    from smlt.backends.aws.backend import AwsBackend

CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
"""torch without CUDA, which PyPI's wheels have for x86."""

DOCKERFILE = """\
# Functions on Lambda: smlt as it was where this was written, with the versions it had there. See `smlt build`.
FROM public.ecr.aws/lambda/python:{python}
COPY requirements.txt .
RUN pip install --no-cache-dir --extra-index-url {cpu_wheels} -r requirements.txt
COPY function/ ${{LAMBDA_TASK_ROOT}}/
CMD ["entry_point.lambda_handler"]
"""


def recipe(backend: AwsBackend, place: RunPlace) -> Recipe:
    """The Dockerfile, what it copies, and how to build and push it. Nothing of the environment is in it.

    Raises:
        PluginError: Lithops is not there, whose entry point functions have.
    """
    spec = importlib.util.find_spec("lithops")
    if spec is None or spec.origin is None:
        raise PluginError("an image needs Lithops' entry point, and Lithops is not there", "pip install 'smlt[aws]'")
    entry = Path(spec.origin).parent / "serverless" / "backends" / "aws_lambda" / "entry_point.py"
    lithops = f"lithops=={importlib.metadata.version('lithops')}"
    requirements = sorted({*backend.requirements(place), lithops})
    files = {
        "Dockerfile": DOCKERFILE.format(
            python=f"{sys.version_info[0]}.{sys.version_info[1]}", cpu_wheels=CPU_WHEELS
        ).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in requirements).encode(),
        "function/entry_point.py": entry.read_bytes(),
        **{f"function/{name}": data for name, data in smlt_files()},
    }
    machine = {"x86_64": "amd64", "arm64": "arm64"}[backend.options.architecture]
    region, tag = backend.region, f"smlt:{place.run}"
    registry = f"$ACCOUNT.dkr.ecr.{region}.amazonaws.com"
    commands = (
        f"docker build --platform linux/{machine} --provenance=false -t {tag} .",
        "ACCOUNT=$(aws sts get-caller-identity --query Account --output text)",
        f"aws ecr create-repository --repository-name smlt --region {region}",
        f"aws ecr get-login-password --region {region} | docker login -u AWS --password-stdin {registry}",
        f"docker tag {tag} {registry}/{tag} && docker push {registry}/{tag}",
    )
    return Recipe(files, commands, {"image": f"ACCOUNT.dkr.ecr.{region}.amazonaws.com/{tag}"})
