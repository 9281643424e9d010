"""What the files of the conformance tests share: which models, components and options they are about."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from models import KINDS, SHAPE, inputs
from networks.architectures import BOUNDS

from deepjudge_core import Model, Suite, build_suite, load_registry, select_seeds
from deepjudge_core.components.values import Seeds

REGISTRY = load_registry()
VICTIM = 1
CONTROLS = (2, 3, 4, 5, 6, 7, 8, 9)
NETWORKS = [kind for kind in KINDS if kind != "numpy"]
# What runs these has no gradients.
ANSWERING = {"openvino", "tflite"}
VICTIMS = [kind for kind in NETWORKS if kind not in ANSWERING]
# One kind of each framework, and the perceptron in numpy.
FRAMEWORKS = ["numpy", "onnx-dynamo", "torch", "keras"]
METRICS = {
    "robd",
    "robd-reference",
    "jsd",
    "jsd-reference",
    "nod",
    "nad",
    "lod",
    "lad",
    "recovery",
    "sac",
    "cka",
    "akh",
    "nnod",
}
GENERATOR_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "fgsm": {"eps": 0.2},
    "pgd": {"eps": 0.2, "step": 0.05, "steps": 4},
    "cw": {"steps": 10, "searches": 2, "constant": 1.0},
    "neuron-corners": {"m": 1.2, "step": 0.05, "iterations": 30, "tries": 3, "per_neuron": 2},
    "mistakes": {},
    "square": {"eps": 0.3, "queries": 40},
    "substitutions": {"share": 0.3, "queries": 40},
}


def arranged(model: Model, x: np.ndarray) -> np.ndarray:
    return x if model.input.shape == SHAPE else np.moveaxis(x, 1, -1)


def make_seeds(model: Model, n: int = 12) -> Seeds:
    x = inputs(52)
    labels = model.predict(arranged(model, x)).argmax(axis=1)
    labels[40:] = (labels[40:] + 1) % model.classes  # mistakes
    return select_seeds(model, x, labels, n=n, order="balanced", bounds=BOUNDS)


def make_suite(model: Model, seed: int = 0) -> Suite:
    names = ("pgd", "neuron-corners", "mistakes")
    options = {name: GENERATOR_OPTIONS[name] for name in names}
    layers = list(model.layers)[:-1]
    return build_suite(
        model,
        make_seeds(model),
        names,
        training_inputs=inputs(40),
        layers=layers,
        options=options,
        seed=seed,
        registry=REGISTRY,
    )


# To make keys of a small network quickly; and how many the level is taken over, where one is slow to read.
SCHEME_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "adi": {"trials": 20},
    "conferrable": {"trials": 10, "steps": 10, "tau": 0.3},
    "deepsigns": {"classes": 2, "bits": 8, "inputs": 16},
    "ewe": {"trials": 20},
    "frontier": {"trials": 10, "eps": 0.15},
    "ipguard": {"trials": 20, "steps": 200},
    "random-inclusion": {},
    "uchida": {},
    "zhang": {"trials": 20},
}
NONCES = {"deepsigns": 200, "random-inclusion": 30, "uchida": 500}
