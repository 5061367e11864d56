"""An exception from a hook of a KerasTask as a TaskError; what a graph raises is traced back to the user's line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from smlt.core.task import UserTask
from smlt.frameworks.blame import OUT_OF_MEMORY, Account, Frame, blaming, frames_of

_NO_PYTHON = "use keras.ops.cond and the like in compiled steps, or compile(..., run_eagerly=True) to debug"
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


def blame(
    task: UserTask, hook: str, doing: str | Callable[[], str] | None = None, hint: str = ""
) -> AbstractContextManager[None]:
    """Translate what a hook raises; see `smlt.frameworks.blame.blaming`."""
    return blaming(task, hook, doing, hint, _account_of)


def _account_of(error: Exception) -> Account:
    if isinstance(error, GraphError):
        kind, frames = error.kind, error.frames
    else:
        kind, frames = type(error).__name__, frames_of(error)
    return Account(kind, _one_line(str(error)), frames, _hint_for(kind, error))


def _hint_for(kind: str, error: Exception) -> str:
    if isinstance(error, MemoryError) or kind == "ResourceExhaustedError":
        return OUT_OF_MEMORY
    return _NO_PYTHON if kind == "OperatorNotAllowedInGraphError" else ""


def _one_line(text: str) -> str:
    """What an exception says, without colours, TensorFlow's node names and Keras' list of arguments."""
    text = re.sub(r"\x1b\[[0-9;]*m|\{\{function_node [^}]*\}\} ?|\[\[\{\{node [^}]*\}\}\]\]|\[Op:[^]]*\]", "", text)
    lines = text.partition("Arguments received by")[0].splitlines()
    return " ".join(" ".join(line for line in lines if not line.lstrip().startswith(_GRAPH_NOISE)).split())
