"""The steps as a program calls them: what is stored may be named by its path, and what is no such thing is one line.

The values stand in the order of the flow: the suite first, then what is held against it. :func:`observe` alone has the
model first, and takes either order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from deepjudge_core.auditing import audit as whole
from deepjudge_core.auditing import power as powers
from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.auditing.power import PowerEstimate
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.settings import AuditSettings
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.components.registry import Registry
from deepjudge_core.components.schemes import Key
from deepjudge_core.components.strata import Stratum
from deepjudge_core.components.values import Seeds
from deepjudge_core.errors import WrongTypeError
from deepjudge_core.files import storage
from deepjudge_core.judging import calibration as calibrating
from deepjudge_core.judging import judge as judging
from deepjudge_core.judging import measure as measuring
from deepjudge_core.judging.calibration import Calibration, load_calibration
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge, Verdict
from deepjudge_core.judging.measure import Measured, Measurements
from deepjudge_core.judging.neurons import DEFAULT_MATCH, Match
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.marking import making, writing
from deepjudge_core.marking.settings import EmbedSettings
from deepjudge_core.marking.writing import MarkedModel
from deepjudge_core.models.model import Model
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.observing import observe as observing
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.suites.inputs import TRAINING_KEYS, Inputs, Offered, open_inputs
from deepjudge_core.suites.keys import load_keys, names_of
from deepjudge_core.suites.observation import Observation, load_observation
from deepjudge_core.suites.settings import ArraySettings, SuiteSettings
from deepjudge_core.suites.suite import Suite, load_suite
from deepjudge_core.zoo.manifest import Zoo, load_zoo

T = TypeVar("T")
Stored = str | Path


def make_suite(
    victim: Any,
    inputs: Offered | Stored | None = None,
    settings: SuiteSettings | None = None,
    *,
    preprocessing: Preprocessing | str | None = None,
    session: Session | None = None,
) -> Suite:
    """Open the victim, select seeds and make test cases from them; and sketch its weights, if they can be read.

    Args:
        victim: The owner's model: a path, a live model or function, or a :class:`Subject`.
        inputs: What seeds are selected from, or the path that :func:`load_inputs` reads; None for a suite of weights
            alone, for which nobody is run. Images that were standardised
            are brought back to 0..1, in which suites keep them, so that each suspect's own preprocessing can be found.
        settings: How.
        preprocessing: What the victim expects of inputs in 0..1, as a text too, such as "imagenet"; by default what its
            subject's query says, or how the inputs were standardised.
        session: Where generators and adapters are, and how a victim's file is confined.

    Raises:
        DeepJudgeError: When the victim or the inputs cannot be used.

    Example:
        >>> suite = dj.make_suite(victim, dj.Inputs(x, label(x)), dj.SuiteSettings(n=30, generators=["square"]))
        >>> suite.counts()["clean"]
        30
    """
    offered = None if inputs is None else _inputs(inputs)
    checked = _of("settings", settings or SuiteSettings(), SuiteSettings, "SuiteSettings(n=500)")
    prepared = Preprocessing.parse(preprocessing) if isinstance(preprocessing, str) else preprocessing
    return whole.make_suite(_model("victim", victim), offered, checked, preprocessing=prepared, session=session)


def make_key(
    scheme: str,
    victim: Any,
    inputs: Offered | Stored,
    *,
    auxiliary: Offered | Stored | None = None,
    zoo: Zoo | Stored | None = None,
    options: Mapping[str, Any] | None = None,
    nonce: bytes | None = None,
    preprocessing: Preprocessing | str | None = None,
    session: Session | None = None,
) -> Key:
    """Make the secret key of a watermark or fingerprint: what it counts is asked of every model, in a suite.

    Args:
        scheme: Name of the scheme; 'deepjudge plugins' lists them.
        victim: The owner's model, before it is marked: a path, a live model or function, or a :class:`Subject`.
        inputs: Inputs of its task, in the range of those that the suite is going to be made from, or the path that
            :func:`load_inputs` reads.
        auxiliary: Inputs of another task, of the same shape and range, or their path.
        zoo: A zoo of the victim, or its folder: its controls are references, its stolen models surrogates.
        options: Of the scheme.
        nonce: 32 bytes that all that is drawn follows from; by default chosen at random. Equal arguments give equal
            keys.
        preprocessing: What the victim expects of inputs in 0..1, as in :func:`make_suite`.
        session: Where schemes and adapters are, and how files are confined.

    Raises:
        DeepJudgeError: When the victim, the inputs or the zoo cannot be used, or the scheme needs what is not there.

    Example:
        >>> key = dj.make_key("adi", victim, dj.Inputs(x, label(x)), options={"trials": 40, "inputs": "noise"})
        >>> key.trials, round(key.chance, 2)
        (40, 0.33)
    """
    session = session or Session()
    if not isinstance(scheme, str):
        raise _wrong("scheme", 'the name of a scheme, such as "adi"', scheme)
    [configured] = session.registry.schemes.configure([scheme], {scheme: options or {}})
    others = auxiliary
    if isinstance(auxiliary, str | Path):
        others = ArraySettings().auxiliary(Path(auxiliary))
    return making.key_of(
        Subject.of(_model("victim", victim)),
        configured,
        _inputs(inputs),
        auxiliary=None if others is None else _inputs(others),
        zoo=None if zoo is None else _loaded("zoo", zoo, Zoo, load_zoo, "the folder that deepjudge zoo made"),
        nonce=nonce,
        preprocessing=Preprocessing.parse(preprocessing) if isinstance(preprocessing, str) else preprocessing,
        session=session,
    )


def embed(
    victim: Any,
    keys: Key | Stored | Iterable[Key | Stored],
    inputs: Offered | Stored,
    path: Stored,
    *,
    test: Offered | Stored | None = None,
    settings: EmbedSettings | None = None,
    preprocessing: Preprocessing | str | None = None,
    session: Session | None = None,
) -> MarkedModel:
    """Train the victim until it carries keys of watermarks, and write it as another model.

    What was written is opened as a suspect is. Unless it carries each key and is hardly less accurate, nothing is kept.

    Args:
        victim: The owner's model, which is left as it is: a path, a live model, or a :class:`Subject`.
        keys: One or several, from :func:`make_key`, or their paths.
        inputs: Inputs that it was trained on, with labels, or the path that :func:`load_inputs` reads.
        path: Of the marked model; without an ending it gets that of its format.
        test: Inputs with labels on which the accuracy is measured, or their path; by default every tenth of the inputs,
            which is then not trained on.
        settings: How long, in which steps, and what it may cost.
        preprocessing: What the victim expects of inputs in 0..1, as in :func:`make_suite`.
        session: Where schemes and adapters are, and how files are confined.

    Raises:
        DeepJudgeError: When the victim, the keys or the inputs cannot be used, a key was not learnt, or the accuracy
            falls too far.

    Example:
        >>> marked = dj.embed("victim.keras", "adi.key.safetensors", "train.npz", "marked.keras")  # doctest: +SKIP
        >>> marked.readings["adi.key.safetensors"].found  # doctest: +SKIP
        100
    """
    several = [keys] if isinstance(keys, str | Path | Key) else _several("keys", keys, Key)
    given = [one for one in several if isinstance(one, Key)]
    stored = load_keys([one for one in several if not isinstance(one, Key)])
    names = zip(names_of(given), given, strict=True)
    return writing.embed(
        Subject.of(_model("victim", victim)),
        {**dict(names), **stored},
        _training(inputs),
        Path(path),
        test=None if test is None else _inputs(test),
        settings=_of("settings", settings or EmbedSettings(), EmbedSettings, "EmbedSettings(epochs=10)"),
        preprocessing=Preprocessing.parse(preprocessing) if isinstance(preprocessing, str) else preprocessing,
        session=session,
    )


def observe(
    model: Any, suite: Any, asking: QuerySettings | None = None, *, session: Session | None = None
) -> Observation:
    """Let a model answer all cases of a suite.

    Args:
        model: Anybody's model: a path, which is opened in the sandbox, a live model or function, or a :class:`Subject`.
        suite: The suite, or its path. Suite and model may stand in either order.
        asking: How, if the model does not tell.
        session: Where the adapters are, and how a file is confined.

    Raises:
        ModelError: When the model takes other inputs, cannot be run, or answers nonsense.
        UsageError: When ``asking`` names what does not exist.

    Example:
        >>> answers = dj.observe(thief, suite)
        >>> answers.probabilities.shape[1]
        3
    """
    if isinstance(model, Suite) or (_is_own(model) and not isinstance(suite, Suite) and not _is_own(suite)):
        model, suite = suite, model
    given = _suite(suite)
    _of("asking", asking or QuerySettings(), QuerySettings, "QuerySettings(classes=...)")
    if isinstance(model, Model) and session is None and given.weights is None:
        return observing.observe(model, given, asking)
    subject = Subject.of(_model("model", model), query=asking)
    with subject.answering(given, session or Session()) as answer:
        return answer()


def measure(
    suite: Suite | Stored,
    observation: Observation | Stored,
    metrics: Iterable[str] | None = None,
    *,
    match: Match = DEFAULT_MATCH,
    registry: Registry | None = None,
    calibration: Calibration | None = None,
) -> Measurements:
    """Measure a model against the victim.

    Args:
        suite: The suite, with the victim's own answers, or its path.
        observation: The model's answers to it, or their path.
        metrics: Names of metrics, "all" for every installed one; by default those that are taken without a name.
        match: How the model's neurons are put beside the victim's; suspects and controls alike.
        registry: Where the metrics are; by default every installed one.
        calibration: The controls, for metrics that take a common ancestor into account; their neurons' way of matching
            counts.

    Raises:
        FileFormatError: When the answers are to another suite.
        UsageError: For an unknown metric.

    Example:
        >>> measured = dj.measure(suite, dj.observe(thief, suite), ["robd", "jsd"])
        >>> measured["jsd"].value < 0.01
        True
    """
    return measuring.measure(
        _suite(suite),
        _observation("observation", observation),
        _names(metrics),
        match=calibration.match if calibration else match,
        registry=registry,
        siblings=calibration.siblings() if calibration else (),
    )


def calibrate(
    suite: Suite | Stored,
    controls: Sequence[Observation | Stored],
    metrics: Iterable[str] | None = None,
    *,
    match: Match = DEFAULT_MATCH,
    strata: Sequence[Stratum | None] = (),
    far: bool = False,
    registry: Registry | None = None,
) -> Calibration:
    """Measure the controls.

    Args:
        suite: The suite, or its path.
        controls: Their answers, or the paths of these; a model that is given twice, in whatever formats, is counted
            once.
        metrics: Names of metrics, "all" for every installed one; by default those that are taken without a name.
        match: How neurons are put beside the victim's, of the controls and later of every suspect.
        strata: Of each control its stratum, None where that is not known; by default of all.
        far: Whether controls far less accurate than the victim set thresholds, too.
        registry: Where the metrics are; by default every installed one.

    Raises:
        CalibrationError: When a control is the victim, or its copy in another format; or one model is said to be of two
            strata.
        FileFormatError: When the answers are to another suite.
        UsageError: For an unknown metric or stratum.

    Example:
        >>> calibration = dj.calibrate(suite, [dj.observe(control, suite) for control in controls])
        >>> len(calibration.controls)
        12
    """
    listed = _several("controls", controls, Observation)
    return calibrating.calibrate(
        _suite(suite),
        [_observation("controls", control) for control in listed],
        _names(metrics),
        match=match,
        strata=strata,
        far=far,
        registry=registry,
    )


def judge(
    measurements: Measurements,
    calibration: Calibration | Stored,
    settings: JudgeSettings | None = None,
    *,
    registry: Registry | None = None,
) -> Verdict:
    """Judge a suspect.

    Args:
        measurements: The suspect's, from :func:`measure`.
        calibration: The controls, or the path of their answers, which are measured as the suspect was.
        settings: The rule, its options, and whether one vote is taken over all metrics; what was measured is judged.
        registry: Where the rules are; by default every installed one.

    Raises:
        CalibrationError: When the suspect's neurons were not matched as those of the controls.
        UsageError: For an unknown rule or option, or an impossible value.
        PluginError: When the rule fails.

    Example:
        >>> verdict = dj.judge(dj.measure(suite, dj.observe(thief, suite)), calibration)
        >>> verdict.points_to
        'behaviour'
    """
    if not isinstance(measurements, dict) or not all(hasattr(one, "metric") for one in measurements.values()):
        raise _wrong("measurements", "what measure(suite, observation) gives", measurements)

    def load(path: Path) -> Calibration:
        if not isinstance(measurements, Measured):
            raise _wrong("calibration", "one that was loaded, load_calibration(path, suite)", calibration)
        return load_calibration(path, measurements.suite, list(measurements), registry=registry)

    controls = _loaded("calibration", calibration, Calibration, load, "calibrate(suite, controls)")
    checked = _of("settings", settings or JudgeSettings(), JudgeSettings, 'JudgeSettings(rule="voting")')
    return judging.judge(measurements, controls, checked, registry=registry)


def power(
    suite: Suite | Stored,
    zoo: Zoo | Stored,
    settings: JudgeSettings | Judge | None = None,
    *,
    match: Match = DEFAULT_MATCH,
    far: bool = False,
    observations: Stored | None = None,
    session: Session | None = None,
) -> PowerEstimate:
    """Judge every model of a zoo, to say beforehand what an audit would see.

    Args:
        suite: The suite of the zoo's victim, or its path.
        zoo: The zoo, or its folder.
        settings: How suspects are measured and judged.
        match: How neurons are put beside the victim's.
        far: Whether models whose accuracy is far below the victim's count.
        observations: A folder in which answers are kept, so that they need not be asked for again.
        session: Where the adapters are, and how the zoo's files are confined.

    Raises:
        DeepJudgeError: When suite and zoo do not belong together, or nothing can be judged.
    """
    session = session or Session()
    found = _loaded("zoo", zoo, Zoo, load_zoo, "the folder that deepjudge zoo made")
    asked = settings or JudgeSettings()
    given = _suite(suite)
    resolved = asked if isinstance(asked, Judge) else Judge.of(asked, session.registry)
    resolved = resolved.fitted(session.registry, Offer.of(given))
    folder = None if observations is None else Path(observations)
    return powers.estimate_power(given, found, resolved, match=match, far=far, observations=folder, session=session)


def audit(
    victim: Any,
    suspects: Any,
    inputs: Offered | Stored | None = None,
    *,
    controls: Any = (),
    settings: AuditSettings | None = None,
    session: Session | None = None,
) -> AuditOutcome:
    """Audit suspects in one go: suite, controls, verdicts.

    A model is a path, a live model or function, or a :class:`Subject`, which says how it is opened and asked.

    Args:
        victim: The owner's model.
        suspects: What is judged; one, several, or a folder of files. Stored observations are given as values, or as
            subjects whose ``QuerySettings(stored=True)`` says that they are claims.
        inputs: What seeds are selected from, or the path that :func:`load_inputs` reads; None to compare weights alone.
        controls: Models known to be independent of the victim, at least 3 for a verdict; several, or a folder of files.
        settings: How the suite is made, controls are measured and suspects are judged.
        session: Where the components are, how files are confined, and who hears of each part as soon as it is there.

    Raises:
        DeepJudgeError: When the victim, the inputs or a control cannot be used.

    Example:
        >>> settings = dj.AuditSettings(suite=dj.SuiteSettings(n=30))
        >>> outcome = dj.audit(victim, [thief, honest], dj.Inputs(x, label(x)), controls=controls, settings=settings)
        >>> [str(suspect.decision) for suspect in outcome.suspects]
        ['copy', 'independent']
    """
    session = session or Session()
    return whole.audit(
        _model("victim", victim),
        _models("suspects", suspects, session),
        None if inputs is None else _inputs(inputs),
        controls=_models("controls", controls, session),
        settings=_of("settings", settings or AuditSettings(), AuditSettings, "AuditSettings(judge=...)"),
        session=session,
    )


def compare(
    victim: Any,
    suspects: Any,
    *,
    controls: Any = (),
    ancestor: Stored | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> AuditOutcome:
    """Compare the weights of suspects with the victim's: nothing is run, and neither data nor controls are needed.

    Args:
        victim: The owner's model: a path, or a live model whose adapter reads weights. The graph of a PyTorch module
            is known only with the shape of its input: ``dj.LiveModel(module, {"input_shape": (3, 32, 32)})``. Without
            it, layers that form no chain are not compared.
        suspects: What is compared with it: paths, live models, or a folder of files.
        controls: Models known to be independent of the victim, by whose distances suspects are judged, too.
        ancestor: A model that the victim was made from, or its first weights: what others have of it accuses nobody.
        seed: Of the choice of neurons, and of all else that is random.
        session: Where the components are, how files are confined, and who hears of each part as soon as it is there.

    Raises:
        DeepJudgeError: When the weights of the victim, the ancestor or a control cannot be compared.

    Example:
        >>> outcome = dj.compare("victim.safetensors", ["suspect.safetensors"])  # doctest: +SKIP
        >>> outcome.suspects[0].verdict.settings["weights"].log10_p  # doctest: +SKIP
        -486.46
    """
    if ancestor is not None and not isinstance(ancestor, str | Path):
        raise _wrong("ancestor", "a path", ancestor)
    known = None if ancestor is None else Path(ancestor)
    settings = AuditSettings(suite=SuiteSettings(weights=True, ancestor=known, seed=seed))
    return audit(victim, suspects, None, controls=controls, settings=settings, session=session)


def _suite(value: Any) -> Suite:
    return _loaded("suite", value, Suite, load_suite, "make_suite(victim, inputs)")


def _observation(role: str, value: Any) -> Observation:
    return _loaded(role, value, Observation, load_observation, "observe(model, suite)")


def _inputs(value: Any) -> Offered:
    if isinstance(value, Inputs) or hasattr(value, "fitted"):
        offered: Offered = value
        return offered
    if isinstance(value, str | Path):
        return open_inputs(value)
    raise _wrong("inputs", "Inputs(x, y) or the path of a file or folder", value)


def _model(role: str, value: Any) -> Any:
    if value is None or isinstance(value, Suite | Seeds | Inputs | Calibration):
        raise _wrong(role, "a model: a path, a live model or a function", value)
    return value


def _models(role: str, value: Any, session: Session) -> list[Any]:
    if isinstance(value, str | Path):
        path, adapters = Path(value), session.registry.adapters
        return list(adapters.in_folder(path)) if path.is_dir() and not adapters.reads(path) else [value]
    if isinstance(value, Subject | Observation) or not isinstance(value, Iterable):
        return [_model(role, value)]
    return [_model(role, one) for one in value]


def _several(role: str, value: Any, kind: type[T]) -> list[Any]:
    if isinstance(value, str | Path | kind) or not isinstance(value, Iterable):
        raise _wrong(role, f"a list of {kind.__name__} values or paths", value)
    return list(value)


def _training(value: Any) -> Offered:
    return _inputs(open_inputs(value, usual=TRAINING_KEYS) if isinstance(value, str | Path) else value)


def _names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _loaded(role: str, value: Any, kind: type[T], load: Callable[[Path], T], from_what: str) -> T:
    if isinstance(value, kind):
        return value
    if isinstance(value, str | Path):
        return load(Path(value))
    raise _wrong(role, f"a {kind.__name__} or its path ({from_what})", value)


def _of(role: str, value: Any, kind: type[T], example: str) -> T:
    if isinstance(value, kind):
        return value
    raise _wrong(role, f"{kind.__name__}, such as {example}", value)


def _wrong(role: str, expected: str, value: Any) -> WrongTypeError:
    kind = type(value)
    name = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "deepjudge_core")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    if kind.__module__.startswith("deepjudge_core."):
        name = kind.__qualname__.lstrip("_")
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return WrongTypeError(f"{role}: expected {expected}, found {'None' if value is None else f'{article} {name}'}")


def _is_own(value: Any) -> bool:
    return isinstance(value, str | Path) and Path(value).is_file() and storage.is_own(Path(value))
