"""All that the author of a plugin imports; the contracts for its tests are in :mod:`deepjudge_core.testing`.

Nothing in here changes its name or meaning without a note in the change log: the modules behind it may.
"""

from deepjudge_core import progress
from deepjudge_core.components.attack import Attack, Loot
from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter, Format, Generator, Metric, Rule, Within
from deepjudge_core.components.opening import open_model
from deepjudge_core.components.registry import load_registry
from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Lesson, Lift, Matches, Reading, Scheme, Teaching
from deepjudge_core.components.strata import Stratum
from deepjudge_core.components.values import (
    Answers,
    Cases,
    CaseSet,
    Chance,
    Decision,
    Evidence,
    Judgement,
    Mistakes,
    Seeds,
    Task,
    Vote,
)
from deepjudge_core.errors import (
    DeepJudgeError,
    IncomparableError,
    InputError,
    MissingExtraError,
    ModelError,
    UsageError,
)
from deepjudge_core.files import digests
from deepjudge_core.files.storage import write_bytes
from deepjudge_core.models.batched import BatchedModel
from deepjudge_core.models.cka import linear_cka, unbiased_linear_cka
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.losses import cross_entropy_direction
from deepjudge_core.models.model import Access, Cotangent, Model
from deepjudge_core.models.network import Architecture, Losses, Network, ScoresCotangent, Trainer, Weights
from deepjudge_core.models.outputs import Output, Outputs
from deepjudge_core.models.scores import Scores, softmax
from deepjudge_core.models.taps import Op, Role, Tap, Taps, axes_beside_one_place, find_taps
from deepjudge_core.models.training import Schedule, accuracy, cross_entropy, shifted, train
from deepjudge_core.suites.seeds import select_seeds
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array, Layout
from deepjudge_core.weights.values import NeuronLayer, Roles, StoredWeights, TensorSpec, View

__all__ = [
    "Access",
    "Adapter",
    "Answers",
    "Architecture",
    "Array",
    "Attack",
    "BatchedModel",
    "CaseSet",
    "Cases",
    "Chance",
    "Cotangent",
    "Decision",
    "DeepJudgeError",
    "Evidence",
    "Format",
    "Generator",
    "IncomparableError",
    "InputError",
    "InputSpec",
    "Judgement",
    "Key",
    "KeyAnswers",
    "KeyTask",
    "Layout",
    "Lesson",
    "Lift",
    "Loot",
    "Losses",
    "Matches",
    "Metric",
    "MissingExtraError",
    "Mistakes",
    "Model",
    "ModelError",
    "Network",
    "NeuronLayer",
    "Op",
    "Output",
    "Outputs",
    "Reading",
    "Role",
    "Roles",
    "Rule",
    "Schedule",
    "Scheme",
    "Scores",
    "ScoresCotangent",
    "Seeds",
    "StoredWeights",
    "Stratum",
    "Suite",
    "Tap",
    "Taps",
    "Task",
    "Teaching",
    "TensorSpec",
    "Trainer",
    "UsageError",
    "View",
    "Vote",
    "Weights",
    "Within",
    "accuracy",
    "axes_beside_one_place",
    "cross_entropy",
    "cross_entropy_direction",
    "digests",
    "find_taps",
    "hookimpl",
    "linear_cka",
    "load_registry",
    "open_model",
    "progress",
    "select_seeds",
    "shifted",
    "softmax",
    "train",
    "unbiased_linear_cka",
    "write_bytes",
]
