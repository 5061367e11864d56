"""How much of the flat gradients is final while backward still works: told as it grows, so that it can be sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from smlt.core.errors import TaskError
from smlt.core.task import Reached
from smlt.frameworks.torch.flat import FlatGradients


class Front:
    """The parameters of a region up to the first whose gradient is still to come.

    A backward pass that reaches a parameter twice, as reentrant checkpointing does, cannot be followed: the first pass
    is only watched, and where that happens nothing is told ever after.

    Hooks of the user's own may still change a gradient in place. They come first, whenever they were registered:
    torch calls hooks in the order in which they were, and the front's are there for one pass only.

    Args:
        flat: the region.
        names: of its parameters, in its order.
    """

    def __init__(self, flat: FlatGradients, names: list[str]) -> None:
        self._names, self._ends, self._parameters = names, flat.ends, flat.parameters
        self._notes = [self._note(place) for place in range(len(names))]
        self._fired = bytearray(len(names))
        self._at = 0
        self._reached: Reached | None = None
        self._is_watched = self._is_given_up = False

    @contextmanager
    def told(self, reached: Reached) -> Iterator[None]:
        """Around the last backward pass of a step."""
        if self._is_given_up:
            yield
            return
        self._fired[:] = bytes(len(self._fired))
        self._at = 0
        self._reached = reached if self._is_watched else None
        hooks = [
            parameter.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]
            for parameter, note in zip(self._parameters, self._notes, strict=True)
        ]
        try:
            yield
            self._is_watched = True
        finally:
            self._reached = None
            for hook in hooks:
                hook.remove()

    def _note(self, place: int) -> Callable[[Tensor], None]:
        def note(_: Tensor) -> None:
            if self._fired[place]:
                self._refuse(place)
            self._fired[place] = 1
            if place == self._at and self._reached is not None:
                self._advance(self._reached)

        return note

    def _advance(self, reached: Reached) -> None:
        end = self._fired.find(0, self._at)
        self._at = end if end >= 0 else len(self._fired)
        reached(self._ends[self._at - 1])

    def _refuse(self, place: int) -> None:
        self._is_given_up = True
        if self._reached is not None:
            raise TaskError(
                f"backward came to {self._names[place]} a second time, after its gradient had been sent",
                "use checkpoint(..., use_reentrant=False), or let every step run the same layers",
            )
