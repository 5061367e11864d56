"""Whose fault it was: an exception from a user's hook becomes a TaskError that names the hook, the file, the line."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from smlt.core.errors import SmltError, TaskError
from smlt.core.task import UserTask

OUT_OF_MEMORY = "let fewer examples into a forward pass ([train].micro_batch), or give the workers more memory"

Frame = tuple[str, int]
"""A file and a line in it."""


@dataclass(frozen=True)
class Account:
    """What an exception says.

    Attributes:
        kind: name of its class.
        text: its message.
        frames: where it came from, outermost first.
        hint: how to mend it, where that is known from the exception itself; else empty.
    """

    kind: str
    text: str
    frames: Sequence[Frame]
    hint: str = ""


def frames_of(error: Exception) -> list[Frame]:
    """The frames of its traceback, outermost first."""
    return [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]


@contextmanager
def blaming(
    task: UserTask,
    hook: str,
    doing: str | Callable[[], str] | None,
    hint: str,
    account_of: Callable[[Exception], Account],
) -> Iterator[None]:
    """Translate what a hook raises.

    Args:
        task: the user's task.
        hook: the name of the method that runs, or that made what runs.
        doing: what raised, where that is not the hook itself, for example "train_data()[7]".
        hint: how to mend it, where nothing better is known.
        account_of: reads an exception as the framework means it.

    Raises:
        TaskError: from the exception; an SmltError passes as it is.
    """
    try:
        yield
    except SmltError:
        raise
    except Exception as error:
        account = account_of(error)
        what = doing() if callable(doing) else doing or hook
        text = f": {account.text}" if account.text else ""
        message = f"{what} raised {account.kind}{text}{_place(task, hook, account.frames)}"
        raise TaskError(message, account.hint or hint) from error


def overridden(task: UserTask, hook: str, base: type[UserTask]) -> bool:
    """Whether the user's class has a hook of its own."""
    return getattr(type(task), hook) is not getattr(base, hook)


def _place(task: UserTask, hook: str, frames: Sequence[Frame]) -> str:
    """` (task.py:31)`: the innermost frame of the user's own; empty where no frame is."""
    function = inspect.unwrap(getattr(type(task), hook))
    own_file = "" if str(function.__module__).startswith("smlt.") else function.__code__.co_filename
    for filename, line in reversed(frames):
        if filename == own_file or _travelled(filename, task.context.folder):
            return f" ({Path(filename).name}:{line})"
    return ""


def _travelled(filename: str, folder: Path) -> bool:
    path = Path(filename)
    return path.is_relative_to(folder) and "site-packages" not in path.parts
