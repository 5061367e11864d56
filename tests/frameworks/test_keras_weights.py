"""What local SGD averages, on tasks of Keras."""

from __future__ import annotations

from averaging import Averaging
from keras_models import Classifier, Normed


class TestKerasAveraging(Averaging):
    classifier, normed = Classifier, Normed
