"""What each rank has of its own, saved by so many ranks and taken up by as many, or by another number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smlt.core.errors import ProtocolError, TaskError
from smlt.core.task import Array, State

HINT = "the task has changed since the state was saved; start a new run, or undo the change"


def restore(saved: Mapping[str, Array], into: Mapping[str, Array]) -> None:
    """Put what codecs had lost in its place.

    What has no place is dropped: since it was saved, `[sync].codec` was set to fp32, or all but one rank have gone.
    A place for which nothing was saved stays zero: then it was the other way round.

    Raises:
        TaskError: it is of another shape; whole regions are saved, so that the number of ranks does not matter.
    """
    for name, array in into.items():
        if name in saved:
            check_fit(name, saved[name], array)
            np.copyto(array, saved[name])


def check_fit(name: str, saved: Array, wanted: Array) -> None:
    """Raise TaskError if a saved array is of another shape or dtype than the one it is for."""
    if saved.shape != wanted.shape or saved.dtype != wanted.dtype:
        raise TaskError(
            f"{name} of the saved state is {saved.dtype}{list(saved.shape)}, "
            f"but {wanted.dtype}{list(wanted.shape)} in the task",
            HINT,
        )


def shared_out(lost: Sequence[Mapping[str, Array]], parts: int) -> dict[str, Array]:
    """An equal part, one of so many, of what the codecs of several ranks had lost; of one rank, all of it.

    Args:
        lost: by rank and name.
        parts: into how many; where sums are taken, ranks now, so that the total stays; where means are taken, ranks
            before, so that the mean stays.
    """
    if len(lost) == 1:
        return dict(lost[0])
    return {name: _total(name, arrays, parts) for name, arrays in _by_name(lost).items()}


def mean_of(states: Sequence[State]) -> State:
    """The mean of several ranks' states; of one rank, that.

    Floats are averaged in float64, everything else is that of the first rank that has it. What only some ranks have,
    such as the moments of a parameter that no other rank has trained yet, is the mean of theirs.

    Raises:
        ProtocolError: an array has not the same shape everywhere.
    """
    if len(states) == 1:
        return states[0]
    by_name = _by_name([state.arrays for state in states])
    arrays = {
        name: _total(name, arrays, len(arrays)) if arrays[0].dtype.kind == "f" else arrays[0]
        for name, arrays in by_name.items()
    }
    return State(arrays, _united([state.extra for state in states]))


def _by_name(by_rank: Sequence[Mapping[str, Array]]) -> dict[str, list[Array]]:
    """By name, the arrays of the ranks that have it, in rank order."""
    found: dict[str, list[Array]] = {}
    for arrays in by_rank:
        for name, array in arrays.items():
            found.setdefault(name, []).append(array)
    return found


def _total(name: str, arrays: Sequence[Array], parts: int) -> Array:
    """The sum of arrays, divided."""
    first = arrays[0]
    if any(array.shape != first.shape for array in arrays):
        raise ProtocolError(f"the ranks saved different private states: {name}")
    total = np.add.reduce([array.astype(np.float64) for array in arrays]) / parts
    return np.asarray(total, first.dtype)


def _united(maps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that is in any of several nested maps; what several have is the first one's."""
    united: dict[str, Any] = {}
    for each in maps:
        for key, value in each.items():
            if key not in united:
                united[key] = value
            elif isinstance(value, Mapping) and isinstance(united[key], Mapping):
                united[key] = _united([united[key], value])
    return united
