"""The task's files: found beside it, packed, and unpacked and imported inside a worker."""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import importlib
import importlib.util
import io
import os
import re
import shutil
import sys
import types
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from smlt.core.errors import ConfigError, TaskError, nearest
from smlt.core.task import UserTask
from smlt.core.units import format_bytes

MAX_BUNDLE_BYTES = 64 * 2**20
IGNORE_FILE = ".smltignore"
NEVER = ("__pycache__", "node_modules", "*.pyc", "*.egg-info")
LOOSE_PACKAGE = "smlt_task"
"""A task that lies in no package is imported as a module of this one, so that its relative imports work."""


@dataclass(frozen=True)
class TaskSource:
    """A task as the user named it, found on disk.

    Attributes:
        root: the folder whose files travel.
        base: folder within which names in the bundle are relative; what a worker puts on its path.
        module: the module to import from `base`.
        class_name: the class in it.
        file: the file that defines it.
    """

    root: Path
    base: Path
    module: str
    class_name: str
    file: Path


def find_task(task: str, folder: Path) -> TaskSource:
    """Find the task that `file.py:Class` or `package.module:Class` names, without importing it.

    Raises:
        ConfigError: the form is wrong, the file is missing or does not parse, or has no such class.
    """
    path, _, class_name = task.rpartition(":")
    if not path or not class_name.isidentifier():
        raise ConfigError(
            f"[job].task: {task!r} names no class", "write it like task.py:Digits or package.module:Digits"
        )
    file = task_file(path, folder)
    if not file.is_file():
        beside = sorted(item.name for item in folder.glob("*.py"))
        hint = nearest(path, beside) if path.endswith(".py") else "a module is looked up from the current folder"
        raise ConfigError(f"[job].task: there is no file {folder / path}", hint)
    _check_defines(file, class_name)
    file = file.resolve()
    top = file.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    if top == file.parent:
        return TaskSource(top, top, f"{LOOSE_PACKAGE}.{file.stem}", class_name, file)
    relative = file.relative_to(top).with_suffix("")
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    return TaskSource(top / relative.parts[0], top, ".".join(parts), class_name, file)


def task_file(path: str, folder: Path) -> Path:
    """Where the file of a task would be that is written as `file.py` or `package.module`."""
    if path.endswith(".py"):
        return folder / path
    file = (folder / Path(*path.split("."))).with_suffix(".py")
    return file if file.is_file() else folder / Path(*path.split(".")) / "__init__.py"


def _check_defines(file: Path, class_name: str) -> None:
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        where = f"{file}:{error.lineno}" if error.lineno else str(file)
        raise ConfigError(f"{where}: {error.msg}", "mend the task's file") from error
    names = set(_top_level_names(tree.body))
    if class_name not in names and "*" not in names:
        classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        raise ConfigError(f"[job].task: {file} has no class {class_name!r}", nearest(class_name, classes))


def _top_level_names(body: Sequence[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name for alias in aliases)
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.If(body=inner, orelse=other) | ast.Try(body=inner, orelse=other):
                yield from _top_level_names([*inner, *other])


_FRAMEWORK_IMPORT = re.compile(r"^\s*(?:from|import)\s+smlt\.frameworks\.(\w+)", re.MULTILINE)
_MODULES = {"torch": "torch", "keras": "tensorflow", "jax": "jax"}


def frameworks_of(source: TaskSource) -> tuple[str, ...]:
    """The framework modules that the task's files import through smlt, judged by their text alone."""
    files = [file for file in source.file.parent.glob("*.py") if file.is_file()]
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    found = {name for text in texts for name in _FRAMEWORK_IMPORT.findall(text)}
    return tuple(sorted(_MODULES[name] for name in found if name in _MODULES))


def pack_bundle(source: TaskSource, include: Sequence[str], leave_out: Path | None = None) -> bytes:
    """The files that travel with a task, as a zip whose bytes depend on nothing but them.

    Args:
        source: the task.
        include: patterns of what travels, beside the task's own file.
        leave_out: a folder that stays here, whatever it is called: where runs are kept.

    Raises:
        ConfigError: they are over 64 MiB together, with the largest ones named.
    """
    ignored = _ignore_patterns(source.root)
    files: list[tuple[Path, int]] = []
    total = 0
    for path in _walk(source.root, ignored, leave_out.resolve() if leave_out else None):
        relative = path.relative_to(source.root).as_posix()
        wanted = any(fnmatch.fnmatch(relative, pattern) or fnmatch.fnmatch(path.name, pattern) for pattern in include)
        if not wanted and path != source.file:
            continue
        size = path.stat().st_size
        files.append((path, size))
        total += size
        if total > MAX_BUNDLE_BYTES:
            largest = ", ".join(
                f"{item.relative_to(source.root)} ({format_bytes(weight)})"
                for item, weight in sorted(files, key=lambda entry: -entry[1])[:3]
            )
            raise ConfigError(
                f"the files beside the task are over {format_bytes(MAX_BUNDLE_BYTES)}: {largest}",
                f"name what must travel in [job].include, or leave files out in {source.root / IGNORE_FILE}",
            )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, _ in files:
            info = zipfile.ZipInfo(path.relative_to(source.base).as_posix())
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
    return buffer.getvalue()


def _walk(root: Path, ignored: Sequence[str], leave_out: Path | None) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        here = Path(folder)
        if here == leave_out:
            names.clear()
            continue
        names[:] = sorted(
            name
            for name in names
            if not _is_ignored((here / name).relative_to(root), ignored)
            and not (here / name / "pyvenv.cfg").exists()  # a virtual environment, whatever its name
        )
        for name in sorted(files):
            path = here / name
            if not _is_ignored(path.relative_to(root), ignored) and path.is_file():
                yield path


def _is_ignored(relative: Path, ignored: Sequence[str]) -> bool:
    if relative.name.startswith("."):
        return True
    whole = relative.as_posix()
    return any(
        fnmatch.fnmatch(relative.name, pattern) or fnmatch.fnmatch(whole, pattern) for pattern in (*NEVER, *ignored)
    )


def _ignore_patterns(root: Path) -> list[str]:
    file = root / IGNORE_FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")]


def unpack_bundle(data: bytes, scratch: Path) -> Path:
    """Unpack a bundle below `scratch`, once however many workers share it; returns the folder.

    Raises:
        TaskError: the scratch folder cannot be written.
    """
    target = scratch / hashlib.sha256(data).hexdigest()[:16]
    if target.is_dir():
        return target
    building = scratch / f"{target.name}.{os.getpid()}"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(building)
        building.rename(target)
    except OSError as error:
        if not target.is_dir():
            raise TaskError(
                f"cannot unpack the task's files to {target}: {error}", "is the disk full, or not this user's to write?"
            ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)  # of the one who came second, or who failed
    return target


def import_task(base: Path, module: str, class_name: str) -> type[UserTask]:
    """Import the task's class from an unpacked bundle.

    Raises:
        TaskError: the import fails, or the class is not derived from a framework's task class.
    """
    if str(base) not in sys.path:
        sys.path.insert(0, str(base))
    if module.startswith(LOOSE_PACKAGE + ".") and LOOSE_PACKAGE not in sys.modules:
        package = types.ModuleType(LOOSE_PACKAGE)
        package.__path__ = [str(base)]
        sys.modules[LOOSE_PACKAGE] = package
    importlib.invalidate_caches()
    try:
        found = getattr(importlib.import_module(module), class_name)
    except ModuleNotFoundError as error:
        raise TaskError(
            f"the task imports {error.name!r}, which is not there",
            f"pip install {error.name}, or put its file beside the task" if error.name else "",
        ) from error
    except Exception as error:
        raise TaskError(f"importing the task failed: {type(error).__name__}: {error}{_where(error, base)}") from error
    return checked_task(found)


def checked_task(found: object) -> type[UserTask]:
    """The class, if it is a task; raises TaskError otherwise."""
    if not (isinstance(found, type) and issubclass(found, UserTask)):
        raise TaskError(
            f"{getattr(found, '__name__', found)!r} is not a task",
            "derive it from smlt.frameworks.torch.TorchTask or smlt.frameworks.keras.KerasTask",
        )
    return found


def _where(error: BaseException, base: Path) -> str:
    trace, where = error.__traceback__, ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(base):
            where = f" ({file.relative_to(base)}:{trace.tb_lineno})"
        trace = trace.tb_next
    return where
