"""The reports of an audit and of its power, as they stand in files: what is written, read, rendered and described.

Fields with a default are those that earlier versions did not write.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, UnsetType, field

from deepjudge_core.auditing.folders import SkipCode
from deepjudge_core.components.strata import Stratum
from deepjudge_core.components.values import Group
from deepjudge_core.errors import FileFormatError
from deepjudge_core.files.documents import (
    Count,
    Document,
    Json,
    Lines,
    Positive,
    Sha256,
    Share,
    json_schema,
    parse,
)
from deepjudge_core.files.reading import read_json
from deepjudge_core.judging.judge import GroupMode, PointsTo
from deepjudge_core.judging.neurons import Match
from deepjudge_core.models.info import AccessName
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.models.preprocessing import PreprocessingHeader
from deepjudge_core.suites.inputs.origin import Origin
from deepjudge_core.suites.observation import Guess, Trial
from deepjudge_core.zoo.manifest import Kind, ZooVictim

AUDIT, POWER = "deepjudge/report/1", "deepjudge/power/1"
"""The schemas."""
_MOST_METRICS = 200  # tables have a column for each, so that a few bytes could make any number of cells

Decided = Literal["copy", "independent", "inconclusive"]
Distance = Annotated[float, Meta(ge=0)]
Upper = Annotated[float, Meta(gt=0)]
Version = Annotated[str, Meta(description="Version of deepjudge that wrote the report.")]
Device = Annotated[
    str | None,
    Meta(description="What its framework ran the model on, in the framework's own words; null: not known."),
]
Files = Annotated[
    Mapping[str, Sha256],
    Meta(
        description="SHA-256 of each of the model's files, by its path in the model's folder; of a single file as '.'. "
        "Empty: not known."
    ),
]
ModelSigning = Annotated[
    Sha256 | None,
    Meta(
        description="Of these files the digest that a signature of OpenSSF Model Signing has as its subject; null: not "
        "known."
    ),
]
LayerMap = Annotated[Mapping[str, str], Meta(description="The suite's layer to the tap of the model that answered it.")]
LayerCka = Annotated[
    Mapping[str, Share],
    Meta(
        description="Linear CKA of each layer and the tap that answered it, on the clean seeds (Kornblith et al. 2019)."
    ),
]
NeuronsMoved = Annotated[
    Mapping[str, Count],
    Meta(description="Where neurons were matched: how many of a layer's stand for one at another place."),
]
Classes = Annotated[
    tuple[Count, ...] | None,
    Meta(
        description="The model's own output for each of the victim's classes; null: the same, or not compared.",
    ),
]
Prepared = Annotated[
    PreprocessingHeader | None,
    Meta(
        description="(u * scale - mean) / std of inputs u in 0..1, or of 1 - u (invert), channels reversed at the end "
        "(order); null: the suite's inputs as they are."
    ),
]
Inferred = Annotated[
    tuple[Guess, ...],
    Meta(description="What was not given but found from the model's answers to the seeds."),
]
AskingNotes = Annotated[Lines, Meta(description="How the model was asked, where that is not as the victim.")]
Unsteady = Annotated[
    str | None,
    Meta(description="What of the model's answers changed when some cases were asked again; null: nothing."),
]
Tried = (
    Annotated[
        tuple[Trial, ...],
        Meta(description="Only where there was room for a better one: preprocessings that were tried on the probes."),
    ]
    | UnsetType
)
OnProbes = (
    Annotated[
        Share,
        Meta(description="Share of the suite's probes, inputs as they come, that the model classifies correctly."),
    ]
    | UnsetType
)
RequireLayers = (
    Annotated[
        bool,
        Meta(description="Only where a model whose layers cannot be compared is inconclusive at best."),
    ]
    | UnsetType
)
SuspectDecision = Literal["copy", "independent", "inconclusive", "failed"]


class VictimEntry(Document, frozen=True, kw_only=True):
    """The victim."""

    path: str
    digest: Sha256
    framework: str
    isolation: Isolation
    device: Device = None
    files: Files = field(default_factory=dict)
    model_signing: ModelSigning = None
    accuracy: Annotated[
        Share, Meta(description="Share of the inputs offered as seeds that the victim classifies correctly.")
    ]
    preprocessing: (
        Annotated[
            PreprocessingHeader,
            Meta(description="What the victim expects of the suite's inputs in 0..1; left out: nothing."),
        ]
        | UnsetType
    ) = UNSET


class CaseCounts(Document, frozen=True):
    """How many cases of each set a suite has."""

    clean: Positive
    adversarial: Count
    corners: Count
    mistakes: Annotated[Positive, Meta(description="Of a suite that was made with them only.")] | UnsetType = UNSET

    def named(self) -> dict[str, int]:
        """By set."""
        return _named(self)


class GeneratorEntry(Document, frozen=True):
    """A generator of a suite's cases."""

    name: str
    provider: Annotated[str, Meta(description="Distribution that gave the generator.")]
    options: Annotated[Json, Meta(description="Those that it chose by itself among them.")]
    made: Count
    kept: Count
    details: Annotated[Json, Meta(description="What else it keeps of how its cases were made.")] | UnsetType = UNSET


class LayerEntry(Document, frozen=True):
    """A tap of the victim that is compared."""

    name: str
    neurons: Positive
    unreached: tuple[Count, ...]


class SuiteEntry(Document, frozen=True):
    """What a suite holds, without its arrays."""

    digest: Sha256
    seed: int
    bounds: Annotated[tuple[float, float], Meta(description="Least and greatest value of an input.")]
    cases: CaseCounts
    generators: tuple[GeneratorEntry, ...]
    layers: Annotated[tuple[LayerEntry, ...], Meta(description="Taps of the victim that are compared.")]
    notes: Lines
    feature_bounds: (
        Annotated[
            tuple[tuple[float, ...], tuple[float, ...]],
            Meta(
                description="Least and greatest values of each feature or channel, where they have ranges of their own."
            ),
        ]
        | UnsetType
    ) = UNSET
    labels: (
        Annotated[
            Literal["victim", "several"],
            Meta(
                description="Labels are the victim's own answers, or of several classes of an input the one that it "
                "finds likeliest; left out: those of the inputs."
            ),
        ]
        | UnsetType
    ) = UNSET
    inputs: Annotated[Origin, Meta(description="Where the seeds are from; left out: not recorded.")] | UnsetType = UNSET


class ControlEntry(Document, frozen=True, kw_only=True):
    """A control."""

    path: str
    digest: Sha256
    framework: str
    isolation: Isolation
    device: Device = None
    files: Files = field(default_factory=dict)
    model_signing: ModelSigning = None
    stratum: Annotated[Stratum | None, Meta(description="What it has in common with the victim; null: not known.")] = (
        None
    )
    metrics: Annotated[Mapping[str, Distance | None], Meta(description="Metric to its value; null: not measured.")]
    layer_map: LayerMap = field(default_factory=dict)
    layer_cka: LayerCka = field(default_factory=dict)
    neurons_moved: NeuronsMoved = field(default_factory=dict)
    classes: Classes = None
    preprocessing: Prepared = None
    inferred: Inferred = ()
    notes: AskingNotes = ()
    unsteady: Unsteady = None
    tried: Tried = UNSET
    accuracy_on_probes: OnProbes = UNSET


class CalibrationEntry(Document, frozen=True, kw_only=True):
    """The controls, and what cannot be concluded from them."""

    controls: tuple[ControlEntry, ...]
    match: Annotated[
        Match,
        Meta(
            description="How neurons of controls and suspects were put beside the victim's: by place, or by what they "
            "answer."
        ),
    ]
    limits: Annotated[
        Lines, Meta(description="What cannot be concluded, since controls of a stratum are missing.")
    ] = ()
    notes: Lines


class MadeEntry(Document, frozen=True, kw_only=True):
    """When a report was made, by whom, and in which case."""

    date: (
        Annotated[
            str,
            Meta(
                pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", description="Date and time, UTC; left out: not recorded."
            ),
        ]
        | UnsetType
    ) = UNSET
    case: Annotated[str | UnsetType, Meta(description="What the case is called; left out: nobody said.")] = UNSET
    by: Annotated[str | UnsetType, Meta(description="Who made the report; left out: nobody said.")] = UNSET


class FleetEntry(Document, frozen=True):
    """All suspects together, where they were judged by a false discovery rate (Benjamini & Hochberg, 1995)."""

    fdr: Annotated[Share, Meta(description="Expected share, at most, of honest models among those called copies.")]
    tested: Count
    rejected: Annotated[Count, Meta(description="Of those tested, how many are called copies.")]
    cut: Annotated[Share, Meta(description="The greatest p-value that is called a copy; 0 where none is.")]


class MetricEntry(Document, frozen=True):
    """What a metric is."""

    group: Group
    needs: Annotated[tuple[AccessName, ...], Meta(description="Access to a model without which it cannot be measured.")]
    upper: Annotated[Upper | None, Meta(description="The greatest value that there can be; null: there is none.")]
    provider: Annotated[str, Meta(description="Distribution that gave the metric.")] | UnsetType = UNSET
    title: Annotated[str, Meta(description="What the name stands for.")] | UnsetType = UNSET
    says: Annotated[str, Meta(description="What its value says, and in which unit.")] | UnsetType = UNSET


class SettingEntry(Document, frozen=True, kw_only=True):
    """What was found in one of the settings."""

    decision: Annotated[
        Decided | None,
        Meta(description="null: no metric of this setting was chosen, or access or architecture does not allow one."),
    ]
    p_copy: Share | None
    p_value: Annotated[
        Share | None,
        Meta(
            description="Probability, at most, that an honest model comes as near to the victim; null: the rule gives "
            "none."
        ),
    ] = None
    least_p_value: Annotated[
        Share | None, Meta(description="The smallest p-value that this number of controls could have given.")
    ] = None
    statement: Annotated[str | None, Meta(description="What the rule found, for a reader who is no statistician.")] = (
        None
    )
    reason: str | None


class SettingEntries(Document, frozen=True, rename="kebab"):
    """The settings that a model is judged in."""

    black_box: SettingEntry
    white_box: SettingEntry
    joint: Annotated[SettingEntry, Meta(description="Only where one vote is taken over all metrics.")] | UnsetType = (
        UNSET
    )

    def named(self) -> dict[str, SettingEntry]:
        """By name."""
        return _named(self)


class ResultEntry(Document, frozen=True, kw_only=True):
    """A metric of a model, and what the rule made of it."""

    group: Group
    value: Annotated[Distance | None, Meta(description="null: not measured; see reason.")]
    lower_bound: float | None
    threshold: float | None
    p_value: Annotated[Share | None, Meta(description="By this metric alone.")] = None
    false_positive_rate: Annotated[
        Share | None, Meta(description="Probability, at most, that an honest model gets a vote for copy.")
    ] = None
    vote: Annotated[bool | None, Meta(description="true: for copy; null: the metric casts no vote; see reason.")]
    reason: str | None

    def __post_init__(self) -> None:
        if self.vote is None and self.reason is None:
            raise ValueError("reason: expected a string where no vote is cast, found null")


# What the checks of whole objects say, in the words of JSON Schema.
_EXPLAINED = {"properties": {"reason": {"type": "string"}}}
_SILENT = Meta(extra_json_schema={"if": {"properties": {"vote": {"type": "null"}}}, "then": _EXPLAINED})
_UNDECIDED = Meta(
    extra_json_schema={"if": {"properties": {"decision": {"enum": ["inconclusive", "failed"]}}}, "then": _EXPLAINED}
)
Results = Mapping[str, Annotated[ResultEntry, _SILENT]]


class FdrEntry(Document, frozen=True):
    """A suspect among the others."""

    p_value: Annotated[
        Share,
        Meta(
            description="The smallest of its settings, times their number; 1 where the rule has nothing to say at the "
            "level that would decide."
        ),
    ]
    q_value: Annotated[Share, Meta(description="The least rate at which it would be called a copy.")]
    level: Annotated[
        Share, Meta(description="What the others leave it: it is a copy where its p-value is at most this.")
    ]


class SequentialEntry(Document, frozen=True):
    """What a suspect was asked, case by case."""

    queries: Annotated[Positive, Meta(description="How many cases were asked, each once, seeds among them.")]
    budget: Annotated[Positive, Meta(description="How many might have been.")]
    cases: Annotated[Positive, Meta(description="How many adversarial cases there are.")]
    order: Annotated[str, Meta(description="What the order of the adversarial cases is derived from.")]
    most: Annotated[Count, Meta(description="On how many of those an honest model errs as the victim, at most.")]
    e_copy: Annotated[
        float | None,
        Meta(description="Greatest e-value against at most so many; null: infinite, there were more."),
    ]
    e_independent: Annotated[
        float | None, Meta(description="Greatest e-value against more; null: infinite, there cannot be more.")
    ]
    asked: Annotated[
        tuple[Count, ...],
        Meta(
            description="Rows of the suite's cases, in the order in which they were asked: adversarial ones, and seeds."
        ),
    ]
    labels: Annotated[
        tuple[Count, ...], Meta(description="What the suspect answered to each, as a class of the victim's.")
    ]


class SuspectEntry(Document, frozen=True, kw_only=True):
    """A suspect, and what is said of it."""

    path: str
    digest: Sha256 | None
    framework: str | None
    isolation: Isolation | None
    device: Device = None
    files: Files = field(default_factory=dict)
    model_signing: ModelSigning = None
    accuracy_on_seeds: Share | None
    decision: SuspectDecision
    points_to: PointsTo | None
    settings: SettingEntries
    metrics: Results
    reason: str | None
    tested: (
        Annotated[FdrEntry | None, Meta(description="Only with a fleet; null: it could not be tested.")] | UnsetType
    ) = UNSET
    sequential: Annotated[SequentialEntry, Meta(description="Only where cases were asked one by one.")] | UnsetType = (
        UNSET
    )
    layer_map: LayerMap
    layer_cka: LayerCka = field(default_factory=dict)
    neurons_moved: NeuronsMoved = field(default_factory=dict)
    classes: Classes = None
    preprocessing: Prepared = None
    inferred: Inferred = ()
    notes: AskingNotes = ()
    unsteady: Unsteady = None
    tried: Tried = UNSET
    accuracy_on_probes: OnProbes = UNSET

    def __post_init__(self) -> None:
        if self.decision in ("inconclusive", "failed") and self.reason is None:
            raise ValueError(f"reason: expected a string where the decision is {self.decision}, found null")


Made = Annotated[MadeEntry, Meta(description="Left out: not recorded.")] | UnsetType


class SkippedEntry(Document, frozen=True):
    """A file in a folder of suspects that was not taken as a model."""

    name: str
    code: Annotated[SkipCode, Meta(description="Why.")]
    reason: Annotated[str, Meta(description="Why, in words.")]
    unjudged: Annotated[bool, Meta(description="Whether it may hold a model, which was not judged then.")]


class AuditReport(Document, frozen=True, kw_only=True, tag_field="schema", tag=AUDIT):
    """What came of an audit: one victim, one suite, any number of suspects."""

    deepjudge: Version
    made: Made = UNSET
    victim: VictimEntry
    suite: SuiteEntry
    calibration: CalibrationEntry
    rule: str
    rule_options: Json
    groups: GroupMode
    require_layers: RequireLayers = UNSET
    fleet: FleetEntry | UnsetType = UNSET
    metrics: Annotated[
        Mapping[str, MetricEntry],
        Meta(description="What was measured: metric to what it is, whether any suspect could be judged or none."),
    ]
    suspects: tuple[Annotated[SuspectEntry, _UNDECIDED], ...]
    skipped: (
        Annotated[
            tuple[SkippedEntry, ...],
            Meta(description="Only where there are any: files in folders of suspects that were not taken as models."),
        ]
        | UnsetType
    ) = UNSET


class ShareEntry(Document, frozen=True):
    """So many of so many, their share, and the interval in which the true share lies."""

    count: Count
    of: Count
    share: Share | None
    interval: tuple[Share, Share]


class GroupShares(Document, frozen=True, rename="kebab"):
    """The same in each setting."""

    black_box: ShareEntry
    white_box: ShareEntry

    def named(self) -> dict[str, ShareEntry]:
        """By setting."""
        return _named(self)


class GroupCounts(Document, frozen=True, rename="kebab"):
    """A number in each setting."""

    black_box: Count
    white_box: Count

    def named(self) -> dict[str, int]:
        """By setting."""
        return _named(self)


class AttackEntry(Document, frozen=True):
    """How well thefts by one attack are noticed."""

    attack: str
    copies: ShareEntry
    groups: GroupShares
    inconclusive: Count
    left_out: Count
    auc: Mapping[str, Share | None]
    undecided: GroupCounts | UnsetType = UNSET


class HeldOut(Document, frozen=True):
    """The controls of a zoo."""

    count: Count
    held_out_accused: ShareEntry
    notes: Lines


class ZooModelEntry(Document, frozen=True):
    """A model of a zoo, judged."""

    file: str
    kind: Kind
    stratum: Stratum | None
    attack: str | None
    accuracy: Share | None
    seconds: float
    counts: bool
    decision: SuspectDecision
    points_to: PointsTo | None
    settings: SettingEntries
    metrics: Results
    reason: str | None


class RuleAttackEntry(Document, frozen=True):
    """How well thefts by one attack are noticed by one rule."""

    attack: str
    copies: ShareEntry
    inconclusive: Count


class RuleEntry(Document, frozen=True):
    """What one of several rules says of a zoo."""

    rule: str
    rule_options: Json
    held_out_accused: ShareEntry
    held_out_inconclusive: Count
    attacks: tuple[RuleAttackEntry, ...]
    decisions: Annotated[Mapping[str, SuspectDecision], Meta(description="File of a model to what the rule says.")]


class PowerReport(Document, frozen=True, kw_only=True, tag_field="schema", tag=POWER):
    """What an audit with a suite would see of a zoo's stolen models, and of whom it would accuse."""

    deepjudge: Version
    made: Made = UNSET
    victim: ZooVictim
    suite: SuiteEntry
    match: Match
    rule: str
    rule_options: Json
    groups: GroupMode
    require_layers: RequireLayers = UNSET
    metrics: Mapping[str, MetricEntry]
    controls: HeldOut
    attacks: tuple[AttackEntry, ...]
    models: tuple[ZooModelEntry, ...]
    rules: (
        Annotated[tuple[RuleEntry, ...], Meta(description="Only with several rules; the first is that of all else.")]
        | UnsetType
    ) = UNSET


AnyReport = AuditReport | PowerReport
_R = TypeVar("_R", AuditReport, PowerReport)
_KINDS: Mapping[str, type[AuditReport] | type[PowerReport]] = {AUDIT: AuditReport, POWER: PowerReport}
_TITLES = {AUDIT: "deepjudge audit report", POWER: "deepjudge power report"}


def read_report(path: Path) -> AnyReport:
    """Read a report of an audit, or one of an audit's power, which may be anybody's.

    Raises:
        FileFormatError: When it is no such file, or says something that no report says: where, and what was expected.
    """
    return report_of(read_json(path, "a deepjudge report"), str(path))


def read_audit(path: Path) -> tuple[AuditReport, Json]:
    """Read a report of an audit, and the JSON values that it was.

    Raises:
        FileFormatError: As :func:`read_report`.
    """
    values = read_json(path, "a report")
    return _report(AuditReport, values, str(path)), values


def report_of(value: Any, source: str) -> AnyReport:
    """The report that JSON values are.

    Args:
        value: The values.
        source: What messages call them.

    Raises:
        FileFormatError: When they are none.
    """
    is_power = isinstance(value, dict) and value.get("schema") == POWER
    if is_power:
        return _report(PowerReport, value, source, *_TITLES)
    return _report(AuditReport, value, source, *_TITLES)


def _report(kind: type[_R], value: Any, source: str, *schemas: str) -> _R:
    tag = kind.__struct_config__.tag
    if not isinstance(value, dict) or value.get("schema") != tag:
        expected = f"one of {', '.join(schemas)}" if schemas else f"a {tag}"
        raise FileFormatError(f"{source}: expected {expected}, found other JSON")
    try:
        report = parse(kind, value)
    except ValueError as error:
        raise FileFormatError(f"{source}: {error}", code="damaged-file") from None
    if len(report.metrics) > _MOST_METRICS:
        raise FileFormatError(f"{source}: metrics: expected at most {_MOST_METRICS}, found {len(report.metrics)}")
    return report


def schema_of(report: AnyReport) -> str:
    """The name of the schema that a report keeps."""
    return AUDIT if isinstance(report, AuditReport) else POWER


def schema(name: str = AUDIT) -> dict[str, Any]:
    """The JSON Schema that every report of a kind keeps."""
    return json_schema(_KINDS[name], _TITLES[name])


def _named(entry: Document) -> dict[str, Any]:
    # What is set, by its name in JSON.
    names = zip(entry.__struct_encode_fields__, entry.__struct_fields__, strict=True)
    values = {name: getattr(entry, attribute) for name, attribute in names}
    return {name: value for name, value in values.items() if value is not UNSET}
