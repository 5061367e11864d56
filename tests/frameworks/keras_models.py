"""Small tasks that the Keras tests share."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from smlt.core.task import Loss, Metric
from smlt.frameworks.keras import KerasTask


def points(examples: int = 37, seed: int = 5) -> tuple[Any, Any]:
    """Points in 6 dimensions and the class of each, one of 3."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, 6)).astype(np.float32)
    return x, (x @ rng.normal(size=(6, 3))).argmax(1)


def cross_entropy() -> keras.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Classifier(KerasTask):
    """A small classifier by AdamW, with a regulariser and a schedule."""

    def build_model(self) -> keras.Model:
        hidden = layers.Dense(17, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01))
        model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3)])
        rate = keras.optimizers.schedules.CosineDecay(2e-2, self.total_steps)
        model.compile(keras.optimizers.AdamW(rate, weight_decay=0.1), cross_entropy(), metrics=["accuracy"])
        return model

    def train_data(self) -> Any:
        return points()


class Judged(Classifier):
    """The same with data to evaluate it on."""

    eval_batch = 5

    def eval_data(self) -> Any:
        return points(23, seed=6)


class Spare(layers.Layer):
    """Owns a variable that it does not use."""

    def build(self, input_shape: Any) -> None:
        self.spare = self.add_weight(shape=(5, 2), initializer="ones", name="spare")

    def call(self, inputs: Any) -> Any:
        return inputs


class Unused(Classifier):
    """With a variable that no step uses."""

    def build_model(self) -> keras.Model:
        model = keras.Sequential([keras.Input((6,)), Spare(), layers.Dense(3)])
        model.compile(keras.optimizers.AdamW(1e-2, weight_decay=0.1), cross_entropy(), metrics=["accuracy"])
        return model


class SumClassifier(Judged):
    """The same by sum and weight; every third example does not count."""

    def training_step(self, model: keras.Model, batch: Any) -> Loss:
        x, y = batch
        counts = ops.cast(x[:, 0] > -0.4, "float32")
        losses = keras.losses.sparse_categorical_crossentropy(y, model(x, training=True), from_logits=True)
        return Loss(ops.sum(losses * counts), ops.sum(counts))

    def eval_step(self, model: keras.Model, batch: Any) -> dict[str, Any]:
        x, y = batch
        right = ops.cast(ops.equal(ops.argmax(model(x), 1), y), "float32")
        return {"accuracy": ops.mean(right), "right": Metric(ops.sum(right), ops.shape(right)[0])}


class MaskedTokens(KerasTask):
    """Tokens of unequal number an example, padded with zeros that Keras masks."""

    def build_model(self) -> keras.Model:
        model = keras.Sequential([keras.Input((7,)), layers.Embedding(11, 4, mask_zero=True), layers.Dense(11)])
        model.compile(keras.optimizers.Adam(1e-2), cross_entropy(), metrics=["accuracy"])
        return model

    def train_data(self) -> Any:
        tokens = np.random.default_rng(1).integers(1, 11, (29, 7))
        tokens[np.arange(7)[None, :] > np.arange(29)[:, None] % 7] = 0
        return tokens, (tokens * 3) % 11

    def eval_data(self) -> Any:
        return self.train_data()


class Counter(layers.Layer):
    """Counts the examples it has seen in training."""

    def build(self, input_shape: Any) -> None:
        self.seen = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="seen")

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self.seen.assign_add(ops.shape(inputs)[0])
        return inputs


class Normed(Classifier):
    """Batch norm, dropout, and a variable that is an integer."""

    def build_model(self) -> keras.Model:
        parts = [Counter(), layers.BatchNormalization(momentum=0.9), layers.Dropout(0.3), layers.Dense(3)]
        model = keras.Sequential([keras.Input((6,)), layers.Dense(8), *parts])
        model.compile(keras.optimizers.Adam(1e-2), cross_entropy(), metrics=["accuracy"])
        return model
