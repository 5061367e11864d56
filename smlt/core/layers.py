"""Where settings come from: flags, `--set`, SMLT_* variables and files, each read into a layer with origins.

`read_layers` is the one place that looks at files and the environment, both given to it; what the settings mean is
`settings.py`'s business.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from smlt.core.errors import Problem

SHORTCUTS: Mapping[str, tuple[str, str]] = {
    "task": ("job", "task"),
    "name": ("job", "name"),
    "epochs": ("job", "epochs"),
    "steps": ("job", "steps"),
    "seed": ("job", "seed"),
    "global_batch": ("job", "global_batch"),
    "params": ("job", "params"),
    "backend": ("backend", "name"),
    "workers": ("workers", "count"),
    "memory": ("workers", "memory"),
    "deadline": ("limits", "deadline"),
    "budget": ("limits", "budget"),
    "planner": ("planner", "name"),
    "catalog": ("prices", "catalog"),
}
"""Short names of common settings: flags (`--workers`), variables (`SMLT_WORKERS`) and arguments of `smlt.train`."""

NOT_SETTINGS = ("SMLT_CONFIG", "SMLT_RUNS_DIR", "SMLT_DEBUG")
"""Variables that steer the command itself: the file of `--config`, the folder for runs, tracebacks."""


class Text(str):
    """A value given as bare text, on a command line or in a variable: read as TOML where its setting is no text."""

    def read(self) -> Any:
        """The TOML value this text spells; the text itself where it spells none."""
        try:
            document = tomllib.loads(f"value = {self}")
        except tomllib.TOMLDecodeError:
            return str(self)
        return document["value"] if set(document) == {"value"} else str(self)


@dataclass(frozen=True)
class Setting:
    """One value: its key from the section down, where it was set, and the folder that paths in it start from."""

    path: tuple[str, ...]
    value: Any
    origin: str
    folder: Path


@dataclass(frozen=True)
class Layers:
    """Settings by layer, strongest first, what was wrong with reading them, and the folder of the command.

    Where `unread`, a file is there that could not be read: what seems missing may be in it.
    """

    ordered: tuple[tuple[Setting, ...], ...]
    problems: tuple[Problem, ...]
    cwd: Path
    unread: bool = False


def read_layers(
    *,
    cwd: Path,
    env: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
    origin_of: Callable[[str], str] = lambda name: f"--{name.replace('_', '-')}",
    keyed: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    config: Path | None = None,
    project_file: bool = True,
) -> Layers:
    """Read every layer: flags, variables, `--config FILE`, `./smlt.toml`, the user's configuration.

    Args:
        cwd: the folder that `smlt.toml` is looked for in.
        env: the environment.
        flags: values by a name of `SHORTCUTS`; None for a flag that was not given.
        origin_of: how the origin of a flag is written, from its name; for `keyed` from "settings".
        keyed: values by dotted key, as strong as a flag.
        assignments: `section.key=value` texts of `--set`.
        config: the file of `--config`; where it is None, SMLT_CONFIG may name one.
        project_file: whether `./smlt.toml` counts.
    """
    problems: list[Problem] = []
    given = _given(flags or {}, origin_of, keyed or {}, assignments, cwd, problems)
    variables = _variables(env, cwd, problems)
    if config is None and env.get("SMLT_CONFIG"):
        config = Path(env["SMLT_CONFIG"])
    files: list[tuple[Path, bool]] = [] if config is None else [(cwd / config, True)]
    if project_file and (config is None or (cwd / config).resolve() != (cwd / "smlt.toml").resolve()):
        files.append((cwd / "smlt.toml", False))
    files.append((user_config(env), False))
    before = len(problems)
    read = [tuple(_file(path, must, cwd, problems)) for path, must in files]
    unread = len(problems) > before
    return Layers((*given, tuple(variables), *read), tuple(problems), cwd, unread)


def layers_over(
    job: Mapping[str, Any],
    origin: str,
    *,
    cwd: Path,
    folder: Path,
    flags: Mapping[str, Any],
    origin_of: Callable[[str], str],
    keyed: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Layers:
    """What changes a job that is there: flags and `--set` over its own settings. Nothing else counts.

    Args:
        job: the settings that are there, by section.
        origin: what they are called where they are wrong.
        cwd: the folder of the command.
        folder: that paths in `job` start from.
        flags, origin_of, keyed, assignments: as in `read_layers`.
    """
    problems: list[Problem] = []
    changes = _given(flags, origin_of, keyed or {}, assignments, cwd, problems)
    return Layers((*changes, tuple(leaves((), job, origin, folder))), tuple(problems), cwd)


def _given(
    flags: Mapping[str, Any],
    origin_of: Callable[[str], str],
    keyed: Mapping[str, Any],
    assignments: Sequence[str],
    cwd: Path,
    problems: list[Problem],
) -> tuple[tuple[Setting, ...], tuple[Setting, ...]]:
    """Flags, and what is set by its key."""
    named = [
        item
        for name, value in flags.items()
        if value is not None
        for item in leaves(SHORTCUTS[name], value, origin_of(name), cwd)
    ]
    assigned = [*_keyed(keyed, origin_of("settings"), cwd, problems), *_assigned(assignments, cwd, problems)]
    return tuple(named), tuple(assigned)


def user_config(env: Mapping[str, str]) -> Path:
    """The user's own configuration: `smlt/config.toml` in XDG_CONFIG_HOME, which is `~/.config` unless set."""
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    return Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "smlt" / "config.toml"


def runs_folder(given: str | Path | None, env: Mapping[str, str], cwd: Path) -> Path:
    """Where runs are kept: as given, or SMLT_RUNS_DIR, or `.smlt/runs`; absolute."""
    return cwd / (given or env.get("SMLT_RUNS_DIR") or Path(".smlt") / "runs")


def spell(path: Sequence[str]) -> str:
    """A key as TOML writes it: dotted, quoted where it must be."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in path)


def _keyed(values: Mapping[str, Any], origin: str, cwd: Path, problems: list[Problem]) -> Iterator[Setting]:
    for key, value in values.items():
        path = _key(key)
        if path is None:
            problems.append(Problem(repr(key), origin, "not a key", 'write it like "train.precision"'))
        else:
            yield from leaves(path, value, origin, cwd)


def _assigned(texts: Sequence[str], cwd: Path, problems: list[Problem]) -> Iterator[Setting]:
    for text in texts:
        key, equals, value = text.partition("=")
        path = _key(key.strip())
        if not equals or path is None:
            problems.append(Problem(repr(text), "--set", "not an assignment", "write it like --set job.seed=1"))
        else:
            yield Setting(path, Text(value.strip()), "--set", cwd)


def _variables(env: Mapping[str, str], cwd: Path, problems: list[Problem]) -> Iterator[Setting]:
    """Settings from `SMLT_<SECTION>__<KEY>` and `SMLT_<SHORTCUT>`; lower case inside, so a key of `params` is too."""
    for name in sorted(env):
        if not name.startswith("SMLT_") or name in NOT_SETTINGS:
            continue
        short = name.removeprefix("SMLT_").lower()
        parts = tuple(short.split("__"))
        if short in SHORTCUTS:
            yield Setting(SHORTCUTS[short], Text(env[name]), name, cwd)
        elif len(parts) > 1 and all(parts):
            yield Setting(parts, Text(env[name]), name, cwd)
        else:
            known = [*map(str.upper, SHORTCUTS), *(item.removeprefix("SMLT_") for item in NOT_SETTINGS)]
            close = get_close_matches(short.upper(), known, n=1, cutoff=0.6)
            example = "settings are SMLT_<SECTION>__<KEY>, like SMLT_JOB__EPOCHS"
            hint = f"did you mean 'SMLT_{close[0]}'?" if close else example
            problems.append(Problem(name, "environment", "no such setting", hint))


def _file(path: Path, must_exist: bool, cwd: Path, problems: list[Problem]) -> Iterator[Setting]:
    shown = str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            problems.append(Problem(shown, "--config", "no such file"))
    except NotADirectoryError:
        problems.append(Problem(shown, "", "not a file", "a part of its path is no folder"))
    except OSError as error:
        problems.append(Problem(shown, "", f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError as error:
        problems.append(Problem(shown, "", f"is not UTF-8 text (byte {error.start})"))
    except tomllib.TOMLDecodeError as error:
        problems.append(_syntax_problem(shown, str(error)))
    else:
        yield from leaves((), document, shown, path.parent)


def _syntax_problem(shown: str, message: str) -> Problem:
    found = re.fullmatch(r"(?P<what>.*) \(at (?P<where>.*)\)", message)
    what, where = (found["what"], found["where"]) if found else (message, "")
    hint = "text is written in quotes" if what == "Invalid value" else ""
    return Problem(where or "TOML", shown, f"not valid TOML: {what[:1].lower()}{what[1:]}", hint)


def leaves(path: tuple[str, ...], value: Any, origin: str, folder: Path) -> Iterator[Setting]:
    """A table as its leaves; an empty table, or a section that is no table, is a leaf itself."""
    if isinstance(value, Mapping) and (value or not path):
        for key, item in value.items():
            yield from leaves((*path, str(key)), item, origin, folder)
    else:
        yield Setting(path, value, origin, folder)


def _key(text: str) -> tuple[str, ...] | None:
    """The parts of a dotted TOML key; None where it is none."""
    try:
        item: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return None
    path: list[str] = []
    while isinstance(item, dict):
        if len(item) != 1:
            return None
        path.append(next(iter(item)))
        item = item[path[-1]]
    return tuple(path)
