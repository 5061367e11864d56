"""From indices to batches: items of a map-style dataset, each with its own seed, collated by the user's hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import TensorDataset

from smlt.core.errors import TaskError
from smlt.core.task import Indices, seed_of
from smlt.frameworks.hooks import checked_order
from smlt.frameworks.torch.blame import blame
from smlt.frameworks.torch.seeding import seed_everything

if TYPE_CHECKING:
    from smlt.frameworks.torch.task import TorchTask

COLLATE_HINT = "override collate(items) for items that torch's default cannot stack"


class Batches:
    """Batches of a dataset.

    Args:
        task: whose `collate` is used.
        hook: the hook that gave the dataset, for errors.
        dataset: map-style; where it has `__getitems__`, that is used.

    Raises:
        TaskError: the dataset is not map-style.
    """

    def __init__(self, task: TorchTask, hook: str, dataset: Any) -> None:
        kind = type(dataset)
        if not (hasattr(kind, "__len__") and hasattr(kind, "__getitem__")):
            raise TaskError(
                f"{hook} returned a {kind.__name__}, which has no length or no items to pick",
                "return a map-style dataset: __len__ and __getitem__ (index -> item)",
            )
        self._task, self._hook, self._dataset = task, hook, dataset
        with blame(task, hook, f"len({hook}())"):
            self.length = len(dataset)

    def fetch(self, indices: Indices, epoch: int) -> Any:
        """The collated batch of these items.

        Python's, numpy's and torch's random generators are seeded from (seed, epoch, index) before each item; a
        dataset with `__getitems__` is asked for all at once, so they are seeded once, by the first index.
        """
        items = self._items([int(index) for index in indices], epoch)
        with blame(self._task, "collate", hint=COLLATE_HINT):
            return self._task.collate(items)

    def _items(self, indices: list[int], epoch: int) -> list[Any]:
        seed, dataset = self._task.context.seed, self._dataset
        if hasattr(dataset, "__getitems__"):
            seed_everything(seed_of(seed, epoch, indices[0]))
            with blame(self._task, self._hook, f"{self._hook}().__getitems__"):
                return list(dataset.__getitems__(indices))
        seedless = type(dataset) is TensorDataset  # nothing random is in it, and seeds would take longer than its items
        items: list[Any] = []
        with blame(self._task, self._hook, lambda: f"{self._hook}()[{indices[len(items)]}]"):
            for index in indices:
                if not seedless:
                    seed_everything(seed_of(seed, epoch, index))
                items.append(dataset[index])
        return items


def epoch_order(task: TorchTask, examples: int, epoch: int) -> Indices:
    """What the user's `sampler` gives, checked.

    Raises:
        TaskError: it is no order of the training data's indices.
    """
    seed = seed_of(task.context.seed, epoch)
    seed_everything(seed)
    with blame(task, "sampler"):
        returned = np.asarray(task.sampler(np.random.default_rng(seed), epoch))
    return checked_order(returned, examples, epoch)
