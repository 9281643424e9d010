"""Where each name of the package is defined: it is imported when it is first used."""

from .auditing.outcome import AuditOutcome
from .auditing.power import PowerEstimate
from .auditing.session import Listener, Session
from .auditing.settings import AuditSettings
from .auditing.subject import LiveModel, ModelFile, Subject
from .bundles.verify import Verification, verify_bundle
from .components.attack import Attack, Loot
from .components.hooks import hookimpl
from .components.kinds import Adapter, Format, Generator, Metric, Rule
from .components.opening import open_model, open_network
from .components.registry import load_registry
from .components.schemes import Key, Lift, Matches, Scheme
from .components.values import Answers, Cases, Decision, Evidence, Judgement, Mistakes, Seeds, Task, Vote
from .errors import DeepJudgeError
from .judging.calibration import Calibration, load_calibration, save_calibration
from .judging.judge import Judge, Verdict
from .judging.measure import Measurement
from .judging.settings import CalibrationSettings, JudgeSettings
from .marking.settings import EmbedSettings
from .marking.writing import MarkedModel
from .models.input_spec import InputSpec
from .models.isolation import Isolation
from .models.model import Access, Model
from .models.network import Architecture, Network, Trainer
from .models.prepared import Prepared
from .models.preprocessing import Preprocessing
from .observing.settings import QuerySettings
from .sandbox.policy import Sandbox
from .sandbox.remote import open_isolated
from .steps import audit, calibrate, compare, embed, judge, make_key, make_suite, measure, observe, power
from .suites.generation import build_suite
from .suites.inputs import Inputs, load_inputs
from .suites.keys import load_key, save_key
from .suites.observation import Observation, load_observation, save_observation
from .suites.seeds import select_seeds
from .suites.settings import SuiteSettings
from .suites.suite import Suite, load_suite, save_suite
from .zoo.manifest import Zoo, load_zoo

__version__: str

__all__ = [
    "Access",
    "Adapter",
    "Answers",
    "Architecture",
    "Attack",
    "AuditOutcome",
    "AuditSettings",
    "Calibration",
    "CalibrationSettings",
    "Cases",
    "Decision",
    "DeepJudgeError",
    "EmbedSettings",
    "Evidence",
    "Format",
    "Generator",
    "InputSpec",
    "Inputs",
    "Isolation",
    "Judge",
    "JudgeSettings",
    "Judgement",
    "Key",
    "Lift",
    "Listener",
    "LiveModel",
    "Loot",
    "MarkedModel",
    "Matches",
    "Measurement",
    "Metric",
    "Mistakes",
    "Model",
    "ModelFile",
    "Network",
    "Observation",
    "PowerEstimate",
    "Prepared",
    "Preprocessing",
    "QuerySettings",
    "Rule",
    "Sandbox",
    "Scheme",
    "Seeds",
    "Session",
    "Subject",
    "Suite",
    "SuiteSettings",
    "Task",
    "Trainer",
    "Verdict",
    "Verification",
    "Vote",
    "Zoo",
    "__version__",
    "audit",
    "build_suite",
    "calibrate",
    "compare",
    "embed",
    "hookimpl",
    "judge",
    "load_calibration",
    "load_inputs",
    "load_key",
    "load_observation",
    "load_registry",
    "load_suite",
    "load_zoo",
    "make_key",
    "make_suite",
    "measure",
    "observe",
    "open_isolated",
    "open_model",
    "open_network",
    "power",
    "save_calibration",
    "save_key",
    "save_observation",
    "save_suite",
    "select_seeds",
    "verify_bundle",
]
