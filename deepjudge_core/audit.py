"""The whole flow: victim and suspects in, a report out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deepjudge_core.calibration import Calibration, calibrate, check_not_a_control
from deepjudge_core.components import Decision
from deepjudge_core.errors import DeepJudgeError, UsageError
from deepjudge_core.generation import DEFAULT_GENERATORS, build_suite
from deepjudge_core.judge import Grouping, Verdict, check_rule, judge
from deepjudge_core.measure import measure
from deepjudge_core.model import Array, InputSpec
from deepjudge_core.observation import ModelInfo, Observation, load_observation
from deepjudge_core.observe import Asking, accuracy_on_seeds, check_asking, observe
from deepjudge_core.opening import open_model
from deepjudge_core.plugins import Registry, load_registry
from deepjudge_core.seeds import Order, select_seeds
from deepjudge_core.suite import Suite


@dataclass(frozen=True)
class SuspectResult:
    """What came of one suspect.

    Attributes:
        path: What the user called it.
        model: What it is; None where it could not be opened.
        accuracy: Share of the seeds that it classifies correctly (the victim: all); None where its classes are others.
        seen: How it answered; None where it could not be asked.
        verdict: None where it failed.
        failure: Why it failed: one line.
        errors: What failed beside it: one line for each metric.
    """

    path: str
    model: ModelInfo | None = None
    accuracy: float | None = None
    seen: Observation | None = None
    verdict: Verdict | None = None
    failure: str | None = None
    errors: tuple[str, ...] = ()

    @property
    def decision(self) -> Decision:
        """Copy, independent, inconclusive, or failed."""
        return self.verdict.decision if self.verdict else Decision.FAILED


@dataclass(frozen=True, eq=False)
class Report:
    """The outcome of an audit."""

    suite: Suite
    calibration: Calibration
    rule: str
    rule_options: Mapping[str, Any]
    groups: Grouping
    suspects: tuple[SuspectResult, ...]


@dataclass(frozen=True, eq=False)
class Judging:
    """How suspects are judged.

    Attributes:
        metrics: Names; None for every installed one.
        rule: Name of the rule.
        rule_options: Its options.
        groups: "joint" for one vote over all metrics.
        asking: How suspects are asked, where their files do not tell.
        opening: Options of the adapters that open the suspects, such as ``output`` of ONNX models.
    """

    metrics: Sequence[str] | None = None
    rule: str = "voting"
    rule_options: Mapping[str, Any] | None = None
    groups: Grouping = "separate"
    asking: Asking = field(default_factory=Asking)
    opening: Mapping[str, Any] = field(default_factory=dict)


def judge_suspects(
    suite: Suite,
    calibration: Calibration,
    suspects: Iterable[Any],
    judging: Judging,
    *,
    registry: Registry | None = None,
) -> Report:
    """Judge suspects, each by itself: one that fails does not keep the others from being judged.

    Args:
        suite: The suite.
        calibration: The controls; without any, values are given and the verdict is inconclusive.
        suspects: Paths of models or stored observations, live models, or observations.
        judging: How.
        registry: Where the components are; by default every installed one.

    Raises:
        UsageError: For a name or option in ``judging`` that does not exist, or an option with an impossible value.
    """
    registry = registry or load_registry()
    options = check_judging(judging, registry)
    check_asking(judging.asking, suite)
    results = tuple(_judge_one(suite, calibration, suspect, judging, registry) for suspect in suspects)
    return Report(suite, calibration, judging.rule, options, judging.groups, results)


def check_judging(judging: Judging, registry: Registry) -> dict[str, Any]:
    """Refuse a wrong name or option before any model is run: it is the caller's mistake, not one suspect's.

    Returns:
        All options of the rule.

    Raises:
        UsageError: For a metric, rule or option that does not exist.
    """
    metrics = [metric.name for metric in registry.metrics.select(judging.metrics)]
    return check_rule(judging.rule, judging.rule_options or {}, metrics, registry)


def audit(
    victim: Any,
    suspects: Iterable[Any],
    x: Array,
    y: Array,
    *,
    controls: Iterable[Any] = (),
    n: int = 1000,
    order: Order = "high",
    bounds: tuple[float, float] = (0.0, 1.0),
    training_inputs: Array | None = None,
    generators: Sequence[str] = DEFAULT_GENERATORS,
    layers: Sequence[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    judging: Judging | None = None,
    registry: Registry | None = None,
) -> Report:
    """Audit suspects in one go: suite, controls, verdicts.

    Args:
        victim: The owner's model: a path or a live model.
        suspects: Paths or live models.
        x: ``(m, *shape)`` inputs to select seeds from.
        y: ``(m,)`` class numbers.
        controls: Paths or live models known to be independent of the victim, at least 3 for a verdict.
        n: Number of seeds.
        order: Which seeds.
        bounds: Range of the inputs.
        training_inputs: Inputs over which neuron ranges are taken.
        generators: Names of generators.
        layers: Taps of the victim to compare.
        options: Generator name to its options.
        seed: Of all randomness.
        judging: How suspects are judged; of what its ``asking`` says, classes and preprocessing are the
            suspects' alone, and the layout is that of all, ``x`` included, that does not say.
        registry: Where the components are; by default every installed one.

    Raises:
        DeepJudgeError: When the victim, the inputs or a control cannot be used.
    """
    registry = registry or load_registry()
    judging = judging or Judging()
    check_judging(judging, registry)
    owner = open_model(victim, registry=registry, expected=InputSpec(x.shape[1:], layout=judging.asking.layout))
    seeds = select_seeds(owner, x, y, n=n, order=order, bounds=bounds, layout=judging.asking.layout)
    suite = build_suite(
        owner,
        seeds,
        generators,
        training_inputs=training_inputs,
        layout=judging.asking.layout,
        layers=layers,
        options=options,
        seed=seed,
        registry=registry,
    )
    check_asking(judging.asking, suite)
    answers = [look(suite, control, registry, judging.asking.of_controls()) for control in controls]
    calibration = calibrate(suite, answers, judging.metrics, registry=registry)
    return judge_suspects(suite, calibration, suspects, judging, registry=registry)


def look(
    suite: Suite,
    source: Any,
    registry: Registry,
    asking: Asking | None = None,
    opening: Mapping[str, Any] | None = None,
) -> Observation:
    """What a model answers to a suite: from a stored observation, or by opening the model and running it.

    Raises:
        DeepJudgeError: When it cannot be opened, run or read.
    """
    if isinstance(source, Observation):
        return source
    if isinstance(source, str | Path) and Path(source).suffix == ".safetensors":
        return load_observation(Path(source))
    model = open_model(source, registry=registry, expected=suite.victim.model.input, **(opening or {}))
    return observe(model, suite, asking)


def _judge_one(
    suite: Suite, calibration: Calibration, suspect: Any, judging: Judging, registry: Registry
) -> SuspectResult:
    path = _name(suspect)
    try:
        seen = look(suite, suspect, registry, judging.asking, judging.opening)
    except DeepJudgeError as error:
        return SuspectResult(path, failure=str(error))
    result = SuspectResult(path, seen.model, seen=seen)
    try:
        measurements = measure(suite, seen, judging.metrics, registry=registry)
        check_not_a_control(calibration, seen)
        verdict = judge(
            measurements,
            calibration,
            judging.rule,
            options=judging.rule_options,
            groups=judging.groups,
            registry=registry,
        )
    except UsageError:  # an impossible value of a rule's option
        raise
    except DeepJudgeError as error:
        return replace(result, failure=str(error))
    errors = tuple(f"{name}: {m.reason}" for name, m in measurements.items() if m.failed)
    return replace(result, accuracy=accuracy_on_seeds(suite, seen), verdict=verdict, errors=errors)


def _name(suspect: Any) -> str:
    if isinstance(suspect, str | Path):
        return str(suspect)
    if isinstance(suspect, Observation):
        return suspect.model.name
    return str(getattr(suspect, "name", type(suspect).__name__))
