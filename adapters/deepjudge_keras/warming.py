"""Runs tiny models through all that is asked of models, so that what Keras loads late is loaded before."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras.src.legacy.saving import legacy_h5_format

from deepjudge_core.models.adapters import rehearse
from deepjudge_core.models.model import Model
from deepjudge_keras.blueprint import undisturbed


def warm_up(open_model: Callable[[Path], Model], *, gradients: bool) -> None:
    """Save, open and run one model in each format; the files are removed."""
    with undisturbed(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        images, steps = Path(folder) / "images.keras", Path(folder) / "steps.h5"
        keras.saving.save_model(_images(), images)
        # Keras has a word of advice for those who save HDF5 in the usual way.
        legacy_h5_format.save_model_to_hdf5(_steps(), steps)
        for path in (images, steps):
            rehearse(open_model(path), gradients=gradients)


def _images() -> Any:
    layers = keras.layers
    x = keras.Input((6, 6, 1))
    y = layers.BatchNormalization()(layers.Conv2D(2, 3, padding="same", activation="relu")(x))
    y = layers.MaxPooling2D()(layers.Add()([y, layers.DepthwiseConv2D(3, padding="same")(y)]))
    y = layers.Dropout(0.5)(layers.Dense(2, activation="silu")(layers.Flatten()(y)))
    return keras.Model(x, layers.Dense(2, activation="softmax")(y))


def _steps() -> Any:
    layers = keras.layers
    x = keras.Input((4, 2))
    y = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(layers.GRU(2, return_sequences=True)(x))
    y = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(y))
    return keras.Model(x, layers.Dense(2, activation="softmax")(y))
