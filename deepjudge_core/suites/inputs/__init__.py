"""Inputs, from whatever people have them in. One room for each source, and one door: ``load_inputs``."""

from deepjudge_core.suites.inputs.keys import TRAINING_KEYS, USUAL_KEYS
from deepjudge_core.suites.inputs.loading import (
    holds,
    is_archive,
    load_inputs,
    load_training_inputs,
    open_inputs,
    reads,
)
from deepjudge_core.suites.inputs.resizing import RESIZING
from deepjudge_core.suites.inputs.value import Inputs, LabelSource, Offered, as_inputs, check_bounds, fitted

__all__ = [
    "RESIZING",
    "TRAINING_KEYS",
    "USUAL_KEYS",
    "Inputs",
    "LabelSource",
    "Offered",
    "as_inputs",
    "check_bounds",
    "fitted",
    "holds",
    "is_archive",
    "load_inputs",
    "load_training_inputs",
    "open_inputs",
    "reads",
]
