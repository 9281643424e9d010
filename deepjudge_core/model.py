"""Where models were defined at first: scripts in the field import them from here. New ones use the package itself."""

from deepjudge_core.models.batched import BatchedModel
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access, Model
from deepjudge_core.models.scores import Scores
from deepjudge_core.types import Array, Layout

__all__ = ["Access", "Array", "BatchedModel", "InputSpec", "Layout", "Model", "Scores"]
