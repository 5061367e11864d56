"""Whose fault it was: an exception from a user's hook becomes a TaskError that names the hook, the file, the line."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from smlt.core.errors import SmltError, TaskError
from smlt.core.task import UserTask

HINTS = {
    "allocate memory": "let fewer examples into a forward pass ([train].micro_batch), or give the workers more memory",
    "more than 1 value per channel": "batch norm needs more rows in a forward pass: larger global batches or "
    "micro-batches, fewer workers, or a sampler that leaves out the short rest of an epoch",
}
"""What can be done about messages of torch's own, by a part of them."""


@contextmanager
def blame(task: UserTask, hook: str, doing: str | Callable[[], str] | None = None, hint: str = "") -> Iterator[None]:
    """Translate what a hook raises.

    Args:
        task: the user's task.
        hook: the name of the method that runs, or that made what runs.
        doing: what raised, where that is not the hook itself, for example "train_data()[7]".
        hint: how to mend it, where nothing better is known.

    Raises:
        TaskError: from the exception; an SmltError passes as it is.
    """
    try:
        yield
    except SmltError:
        raise
    except Exception as error:
        text = f": {error}" if str(error) else ""
        what = doing() if callable(doing) else doing or hook
        message = f"{what} raised {type(error).__name__}{text}{_place(task, hook, error)}"
        known = [mend for part, mend in HINTS.items() if part in str(error)]
        raise TaskError(message, known[0] if known else hint) from error


def overridden(task: UserTask, hook: str, base: type[UserTask]) -> bool:
    """Whether the user's class has a hook of its own."""
    return getattr(type(task), hook) is not getattr(base, hook)


def _place(task: UserTask, hook: str, error: Exception) -> str:
    """` (task.py:31)`: the innermost frame of the user's own; empty where no frame is."""
    function = inspect.unwrap(getattr(type(task), hook))
    own_file = "" if str(function.__module__).startswith("smlt.") else function.__code__.co_filename
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == own_file or _travelled(frame.filename, task.context.folder):
            return f" ({Path(frame.filename).name}:{frame.lineno})"
    return ""


def _travelled(filename: str, folder: Path) -> bool:
    path = Path(filename)
    return path.is_relative_to(folder) and "site-packages" not in path.parts
