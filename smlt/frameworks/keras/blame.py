"""Whose fault it was: an exception from a user's hook becomes a TaskError that names hook, file and line."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from smlt.core.errors import SmltError, TaskError
from smlt.core.task import UserTask

OUT_OF_MEMORY = "let fewer examples into a forward pass ([train].micro_batch), or give the workers more memory"
_NO_PYTHON = "use keras.ops.cond and the like in compiled steps, or compile(..., run_eagerly=True) to debug"

Frame = tuple[str, int]
"""A file and a line in it."""


_GRAPH_NOISE = ("Graph execution error:", "Detected at node", 'File "', "Stack trace for op definition:")


class GraphError(Exception):
    """An operation of a compiled function failed while it ran.

    Attributes:
        kind: name of TensorFlow's exception.
        frames: where the operation was traced, outermost first.
    """

    def __init__(self, kind: str, message: str, frames: Sequence[Frame]) -> None:
        super().__init__(message)
        self.kind, self.frames = kind, frames


@contextmanager
def blame(task: UserTask, hook: str, doing: str | None = None, hint: str = "") -> Iterator[None]:
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
        kind = error.kind if isinstance(error, GraphError) else type(error).__name__
        text = _one_line(str(error))
        message = f"{doing or hook} raised {kind}{f': {text}' if text else ''}{_place(task, hook, error)}"
        raise TaskError(message, _hint_for(kind, error) or hint) from error


def overridden(task: UserTask, hook: str, base: type[UserTask]) -> bool:
    """Whether the user's class has a hook of its own."""
    return getattr(type(task), hook) is not getattr(base, hook)


def _hint_for(kind: str, error: Exception) -> str:
    if isinstance(error, MemoryError) or kind == "ResourceExhaustedError":
        return OUT_OF_MEMORY
    return _NO_PYTHON if kind == "OperatorNotAllowedInGraphError" else ""


def _one_line(text: str) -> str:
    """What an exception says, without colours, TensorFlow's node names and Keras' list of arguments."""
    text = re.sub(r"\x1b\[[0-9;]*m|\{\{function_node [^}]*\}\} ?|\[\[\{\{node [^}]*\}\}\]\]|\[Op:[^]]*\]", "", text)
    lines = text.partition("Arguments received by")[0].splitlines()
    return " ".join(" ".join(line for line in lines if not line.lstrip().startswith(_GRAPH_NOISE)).split())


def _place(task: UserTask, hook: str, error: Exception) -> str:
    """` (task.py:31)`: the innermost frame of the user's own; empty where no frame is."""
    function = inspect.unwrap(getattr(type(task), hook))
    own_file = function.__code__.co_filename
    for filename, line in reversed(_frames(error)):
        if (filename == own_file and own_file != _LIBRARY) or _travelled(filename, task.context.folder):
            return f" ({Path(filename).name}:{line})"
    return ""


_LIBRARY = str(Path(__file__).with_name("task.py"))
"""Where hooks that the user has not overridden are."""


def _frames(error: Exception) -> list[Frame]:
    if isinstance(error, GraphError):
        return list(error.frames)
    return [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]


def _travelled(filename: str, folder: Path) -> bool:
    path = Path(filename)
    return path.is_relative_to(folder) and "site-packages" not in path.parts
