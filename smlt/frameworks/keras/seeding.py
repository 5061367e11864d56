"""Seeds for everything random: the generators of Python, numpy and Keras, and the states of Keras' SeedGenerators."""

from __future__ import annotations

import random

import numpy as np

from smlt.core.task import Array, seed_of


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's legacy, TensorFlow's and Keras' global generators, from the lowest 32 bits."""
    import keras

    keras.utils.set_random_seed(seed & 0xFFFFFFFF)


def seed_item(seed: int) -> None:
    """Seed Python's and numpy's legacy generator, before an item is read; about 10 us.

    Not TensorFlow's: seeding it throws its compiled kernels away.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)


def generator_state(seed: int, place: int, dtype: str) -> Array:
    """A state for the SeedGenerator at a place in the model: (seed, counter).

    TensorFlow's stateless operations take both modulo 2^31 - 1; the counter starts low enough to count on from there.
    """
    mixed = seed_of(seed, place)
    return np.array([(mixed >> 32) & 0x3FFFFFFF, mixed & 0x00FFFFFF], dtype)
