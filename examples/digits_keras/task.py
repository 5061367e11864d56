"""A small CNN that reads handwritten digits (8 x 8 pixels), in Keras."""

from typing import Any

import keras
import numpy as np
from keras import layers

from smlt.frameworks.keras import KerasTask


class Digits(KerasTask):
    def prepare_data(self) -> dict[str, np.ndarray]:
        from sklearn.datasets import load_digits  # here: the workers only read what this returns
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
        parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
        return dict(zip(("train_x", "test_x", "train_y", "test_y"), parts, strict=True))

    def build_model(self) -> keras.Model:
        width = self.params.get("width", 32)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(width, 3, padding="same", activation="relu"),
                layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
        return model

    def train_data(self) -> Any:
        return self.prepared["train_x"], self.prepared["train_y"]

    def eval_data(self) -> Any:
        return self.prepared["test_x"], self.prepared["test_y"]
