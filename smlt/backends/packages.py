"""What a function needs beside the provider's Python, as a zip: smlt as it is here, and what it and the task require.

The bytes of smlt are those that run here, so that a function never has another smlt than its controller; versions are
those that are installed here, so that it computes the same bits.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from smlt._version import __version__
from smlt.core.errors import CloudError
from smlt.core.units import format_bytes

NOT_IN_FUNCTIONS = ("lithops", "optuna", "rich", "typer")
"""Of what smlt requires, this is the controller's; Lithops brings itself."""

PLATFORMS = {"x86_64": "x86_64", "arm64": "aarch64"}
"""As a provider calls them, and as wheels do."""

GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
"""What wheels may ask of a function's system."""

_NAME = re.compile(r"^[A-Za-z0-9._-]+")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """What functions are given.

    Attributes:
        requirements: as pip takes them, versions pinned where they are known.
        architecture: a key of `PLATFORMS`.
        root: the folder in the zip that is on the functions' path.
    """

    requirements: tuple[str, ...]
    architecture: str
    root: str

    @property
    def digest(self) -> str:
        """Differs where what functions would be given differs."""
        mark = hashlib.sha256(repr((self, sys.version_info[:2])).encode())
        for name, data in smlt_files():
            mark.update(name.encode() + b"\0" + data)
        return mark.hexdigest()


def required(
    frameworks: Sequence[str], task: Sequence[str], provider: Sequence[str], preinstalled: Sequence[str]
) -> tuple[str, ...]:
    """What pip installs for functions.

    Args:
        frameworks: the task's, by the name they are imported by.
        task: `[job].requirements`.
        provider: what the provider's launcher needs in functions.
        preinstalled: names of what functions have from elsewhere.
    """
    own = [line for line in distribution("smlt").requires or () if "extra ==" not in line]
    named = {_name(line): _name(line) for line in [*own, *frameworks, *provider]}
    names = [name for name in named if name not in (*NOT_IN_FUNCTIONS, *map(_name, preinstalled))]
    return tuple(
        sorted({*map(_pinned, names), *(line for line in task if _name(line) not in map(_name, preinstalled))})
    )


def _name(requirement: str) -> str:
    found = _NAME.match(requirement)
    return found[0].lower().replace("_", "-") if found else requirement


def _pinned(name: str) -> str:
    try:
        return f"{name}=={version(name).partition('+')[0]}"
    except PackageNotFoundError:
        return name


def smlt_files() -> Iterator[tuple[str, bytes]]:
    """smlt as it is here: its package and its entry points, as a wheel would hold them."""
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            yield f"smlt/{path.relative_to(root).as_posix()}", path.read_bytes()
    points = distribution("smlt").entry_points
    text = "[smlt]\n" + "".join(sorted(f"{point.name} = {point.value}\n" for point in points if point.group == "smlt"))
    about = f"smlt-{__version__}.dist-info"
    yield f"{about}/entry_points.txt", text.encode()
    yield f"{about}/METADATA", f"Metadata-Version: 2.1\nName: smlt\nVersion: {__version__}\n".encode()


def build_zip(package: Package, folder: Path, most_bytes: int) -> bytes:
    """The zip; it takes pip's time and a connection to a package index, unless nothing is required.

    Args:
        package: what to put in.
        folder: an empty one, to install into.
        most_bytes: the provider's limit, unpacked.

    Raises:
        CloudError: something cannot be installed for functions, or all of it is too large.
    """
    if package.requirements:
        _install(package, folder)
    installed = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    own = list(smlt_files())
    size = sum(path.stat().st_size for path in installed) + sum(len(data) for _, data in own)
    if size > most_bytes:
        raise CloudError(
            f"functions would need {format_bytes(size)} of packages, and a zip may have {format_bytes(most_bytes)}: "
            + _largest(installed, folder),
            "`smlt build` makes an image, which has room; or name in [backend].preinstalled what is there anyway",
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [*((path.relative_to(folder).as_posix(), path.read_bytes()) for path in installed), *own]:
            info = zipfile.ZipInfo(f"{package.root}/{name}", _EPOCH)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def _install(package: Package, folder: Path) -> None:
    machine = PLATFORMS[package.architecture]
    platforms = [f"--platform={glibc}_{machine}" for glibc in GLIBC]
    python = f"--python-version={sys.version_info[0]}.{sys.version_info[1]}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-input", "--no-compile"]
    where = ["--only-binary=:all:", "--implementation=cp", python, *platforms, f"--target={folder}"]
    done = subprocess.run([*pip, *where, *package.requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        raise CloudError(
            f"pip cannot install for functions ({package.architecture}): {' '.join(lines)}",
            "see that each of [job].requirements has a wheel for Linux, and that a package index can be reached",
        )


def _largest(installed: Iterable[Path], folder: Path) -> str:
    sizes: dict[str, int] = {}
    for path in installed:
        top = path.relative_to(folder).parts[0]
        sizes[top] = sizes.get(top, 0) + path.stat().st_size
    top_three = sorted(sizes, key=lambda name: -sizes[name])[:3]
    return ", ".join(f"{name} ({format_bytes(sizes[name])})" for name in top_three)
