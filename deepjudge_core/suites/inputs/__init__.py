"""Inputs, from whatever people have them in. One room for each source, and one door: ``load_inputs``."""

from deepjudge_core.suites.inputs.keys import TRAINING_KEYS, USUAL_KEYS
from deepjudge_core.suites.inputs.loading import holds, load_inputs, load_training_inputs
from deepjudge_core.suites.inputs.value import Inputs, LabelSource, as_inputs, check_bounds

__all__ = [
    "TRAINING_KEYS",
    "USUAL_KEYS",
    "Inputs",
    "LabelSource",
    "as_inputs",
    "check_bounds",
    "holds",
    "load_inputs",
    "load_training_inputs",
]
