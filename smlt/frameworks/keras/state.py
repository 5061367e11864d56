"""A task's state at a commit <-> arrays and plain data: model, optimizer, the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smlt.core.errors import TaskError
from smlt.core.task import Array, State
from smlt.frameworks.keras.blame import blame
from smlt.frameworks.keras.names import model_names, optimizer_names
from smlt.frameworks.keras.plain import decode, encode
from smlt.frameworks.keras.variables import Bulk, raw

if TYPE_CHECKING:
    from smlt.frameworks.keras.task import KerasTask

HINT = "the task has changed since the state was saved; start a new run, or undo the change"
USER = "user"


class Variables:
    """Named variables of Keras, read and written together."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._names = list(named)
        self._bulk = Bulk(raw(named.values()))

    def read(self) -> dict[str, Array]:
        """Read-only arrays by name."""
        return dict(zip(self._names, self._bulk.read(), strict=True))

    def fitting(self, given: Mapping[str, Array], what: str) -> list[Array]:
        """The given arrays in order and shape.

        Raises:
            TaskError: names, shapes or dtypes differ from the variables'.
        """
        missing, surplus = sorted(set(self._names) - set(given)), sorted(set(given) - set(self._names))
        if missing:
            raise TaskError(f"{what} lacks {', '.join(missing)}", HINT)
        if surplus:
            raise TaskError(f"{what} has {', '.join(surplus)}, which the task has not", HINT)
        return [
            _fit(variable, given[name], f"{what}: {name}")
            for name, variable in zip(self._names, self._bulk.variables, strict=True)
        ]

    def write(self, arrays: list[Array]) -> None:
        """Set all, from what `fitting` gave."""
        self._bulk.write(arrays)


class TaskState:
    """All that is equal on every rank at a commit."""

    def __init__(self, task: KerasTask, model: Any) -> None:
        self._task = task
        named = {f"model/{name}": variable for name, variable in model_names(model).items()}
        named |= {f"optimizer/{name}": each for name, each in optimizer_names(model.optimizer, model).items()}
        self._variables = Variables(named)

    def save(self) -> State:
        """The state; arrays are read-only."""
        arrays = self._variables.read()
        with blame(self._task, "state"):
            user = encode(dict(self._task.state()), USER, arrays)
        return State(arrays, {USER: user})

    def load(self, state: State) -> None:
        """Take a state over, whole: what does not fit is found before anything changes.

        Raises:
            TaskError: names, shapes or dtypes differ from the task's.
        """
        own = {name: array for name, array in state.arrays.items() if not name.startswith(f"{USER}/")}
        fitting = self._variables.fitting(own, "the saved state")
        user = decode(state.extra.get(USER, {}), state.arrays)
        self._variables.write(fitting)
        with blame(self._task, "load_state"):
            self._task.load_state(user)


def _fit(variable: Any, array: Array, name: str) -> Array:
    shape, dtype = tuple(variable.shape), variable.dtype.as_numpy_dtype
    if array.shape == (1,) and shape == ():  # some containers know no scalars
        array = array.reshape(())
    if array.shape != shape or array.dtype != dtype:
        raise TaskError(
            f"{name} is {array.dtype}{list(array.shape)}, but {variable.dtype.name}{list(shape)} in the task", HINT
        )
    return array
