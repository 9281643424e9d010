"""Tell whether a suspect deep-learning model is a copy of yours.

The flow, each step a frozen value: inputs -> seeds -> suite -> observations -> measurements -> verdict.

Here models are functions from inputs to scores; paths of files, and live models of PyTorch or Keras, do as well. Each
owner trains one on data of their own, the thief takes the first:

    >>> import numpy as np
    >>> import deepjudge_core as dj
    >>> task = np.random.default_rng(0).normal(size=(16, 3))
    >>> def label(x):
    ...     return ((x - 0.5) @ task).argmax(axis=1)
    >>> def train(seed):
    ...     x = np.random.default_rng(seed).random((150, 16))
    ...     weights = np.linalg.lstsq(x - 0.5, 9 * np.eye(3)[label(x)], rcond=None)[0]
    ...     return lambda x: (x - 0.5) @ weights
    >>> victim, honest, controls = train(1), train(5), [train(seed) for seed in range(10, 22)]
    >>> def thief(x):
    ...     return victim(x + 0.01)

The victim's suite, the controls' answers, and a verdict:

    >>> x = np.random.default_rng(2).random((200, 16))
    >>> suite = dj.make_suite(victim, dj.Inputs(x, label(x)), dj.SuiteSettings(n=30))
    >>> calibration = dj.calibrate(suite, [dj.observe(control, suite) for control in controls])
    >>> for suspect in (thief, honest):
    ...     verdict = dj.judge(dj.measure(suite, dj.observe(suspect, suite)), calibration)
    ...     print(verdict.decision)
    copy
    independent
"""

from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.auditing.power import PowerEstimate
from deepjudge_core.auditing.session import Listener, Session
from deepjudge_core.auditing.settings import AuditSettings
from deepjudge_core.auditing.subject import LiveModel, ModelFile, Subject
from deepjudge_core.bundles.verify import Verification, verify_bundle
from deepjudge_core.components.attack import Attack, Loot
from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter, Format, Generator, Metric, Rule
from deepjudge_core.components.opening import open_model, open_network
from deepjudge_core.components.registry import load_registry
from deepjudge_core.components.schemes import Key, Lift, Matches, Scheme
from deepjudge_core.components.values import Answers, Cases, Decision, Evidence, Judgement, Mistakes, Seeds, Task, Vote
from deepjudge_core.errors import DeepJudgeError
from deepjudge_core.judging.calibration import Calibration, load_calibration, save_calibration
from deepjudge_core.judging.judge import Judge, Verdict
from deepjudge_core.judging.measure import Measurement
from deepjudge_core.judging.settings import CalibrationSettings, JudgeSettings
from deepjudge_core.marking.settings import EmbedSettings
from deepjudge_core.marking.writing import MarkedModel
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.models.model import Access, InputSpec, Model
from deepjudge_core.models.network import Architecture, Network, Trainer
from deepjudge_core.models.prepared import Prepared
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.sandbox.remote import open_isolated
from deepjudge_core.sheets import draw_pages
from deepjudge_core.steps import audit, calibrate, compare, embed, judge, make_key, make_suite, measure, observe, power
from deepjudge_core.suites.generation import build_suite
from deepjudge_core.suites.inputs import Inputs, load_inputs
from deepjudge_core.suites.keys import load_key, save_key
from deepjudge_core.suites.observation import Observation, load_observation, save_observation
from deepjudge_core.suites.seeds import select_seeds
from deepjudge_core.suites.settings import SuiteSettings
from deepjudge_core.suites.suite import Suite, load_suite, save_suite
from deepjudge_core.version import VERSION as __version__  # noqa: N811
from deepjudge_core.zoo.manifest import Zoo, load_zoo


def _page(outcome: AuditOutcome | PowerEstimate) -> str:
    from deepjudge_core.report.outcomes import page_of_outcome  # not before a page is asked for: it loads jinja2

    return page_of_outcome(outcome)


draw_pages(AuditOutcome, _page)
draw_pages(PowerEstimate, _page)

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
