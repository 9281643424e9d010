"""The reports of an audit and of its power, as they stand in files: what is written, read, rendered and described.

Fields with a default are those that earlier versions did not write.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, UnsetType, field

from deepjudge_core.auditing.folders import SkipCode
from deepjudge_core.components.grid import Grid
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
from deepjudge_core.naming import command
from deepjudge_core.suites.challenge import Challenge
from deepjudge_core.suites.choices import Choices
from deepjudge_core.suites.inputs.origin import Origin
from deepjudge_core.suites.observation import Guess, Trial
from deepjudge_core.weights.values import LayerKind
from deepjudge_core.zoo.manifest import Kind, ZooVictim

AUDIT, POWER = "deepjudge/report/1", "deepjudge/power/1"
"""The schemas."""
_MOST_METRICS = 200  # tables have a column for each, so that a few bytes could make any number of cells

Architecture = Literal["same-architecture", "other-architecture"]
Decided = Literal["copy", "independent", "inconclusive"]
Distance = Annotated[float, Meta(ge=0)]
Upper = Annotated[float, Meta(gt=0)]
Version = Annotated[str, Meta(description="Version of deepjudge that wrote the report.")]
Device = Annotated[
    str | None,
    Meta(description="Device that its framework ran the model on, in the framework's own words; null: unknown."),
]
Files = Annotated[
    Mapping[str, Sha256],
    Meta(
        description=(
            "SHA-256 of each file of the model, by its path in the model's folder, or '.' if it is a "
            "single file. Empty: unknown."
        )
    ),
]
ModelSigning = Annotated[
    Sha256 | None,
    Meta(
        description=(
            "Digest of these files that a signature of OpenSSF Model Signing has as its subject; null: unknown."
        )
    ),
]
LayerMap = Annotated[
    Mapping[str, str], Meta(description="The suite's layer to the model's layer (tap) that corresponds to it.")
]
LayerCka = Annotated[
    Mapping[str, Share],
    Meta(
        description=(
            "Linear CKA of each layer and its corresponding layer, on the clean seeds (Kornblith et al. 2019)."
        )
    ),
]
NeuronsMoved = Annotated[
    Mapping[str, Count],
    Meta(
        description=("If neurons were matched: how many neurons of each layer correspond to one at another position.")
    ),
]
Classes = Annotated[
    tuple[Count, ...] | None,
    Meta(
        description=("The model's own output for each of the victim's classes; null: identical, or not compared."),
    ),
]
Prepared = Annotated[
    PreprocessingHeader | None,
    Meta(
        description=(
            "(u * scale - mean) / std of inputs u in 0..1, or of 1 - u (invert), channels reversed "
            "at the end (order); null: the suite's inputs unchanged."
        )
    ),
]
Inferred = Annotated[
    tuple[Guess, ...],
    Meta(description="Settings that were not given, but inferred from the model's answers to the seeds."),
]
AskingNotes = Annotated[Lines, Meta(description="How the model was asked, if that differs from the victim.")]
Unsteady = Annotated[
    str | None,
    Meta(description="Which of the model's answers changed when some cases were asked again; null: none."),
]
Tried = (
    Annotated[
        tuple[Trial, ...],
        Meta(
            description=(
                "Preprocessings that were tried on the probes; present only if there was room for improvement."
            )
        ),
    ]
    | UnsetType
)
OnProbes = (
    Annotated[
        Share,
        Meta(description="Share of the suite's probes, without preprocessing, that the model classifies correctly."),
    ]
    | UnsetType
)
RequireLayers = (
    Annotated[
        bool,
        Meta(description="Present only if a model whose layers cannot be compared is inconclusive at best."),
    ]
    | UnsetType
)
SuspectDecision = Literal["copy", "independent", "inconclusive", "failed"]
_Log10P = Annotated[
    float, Meta(le=0, description="Logarithm to base 10 of the p-value, which may be too small for a number.")
]
Trials = Annotated[int, Meta(ge=0, le=2**31)]
Proves = Literal["origin", "data"]


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
        Share | None,
        Meta(
            description=(
                "Share of the inputs offered as seeds that the victim classifies correctly; null: it was not run, "
                "since the suite has no cases."
            )
        ),
    ]
    preprocessing: (
        Annotated[
            PreprocessingHeader,
            Meta(description="Preprocessing that the victim expects of the suite's inputs in 0..1; absent: none."),
        ]
        | UnsetType
    ) = UNSET


class CaseCounts(Document, frozen=True):
    """How many cases of each set a suite has."""

    clean: Annotated[Count, Meta(description="0 only in suites of weights alone.")]
    adversarial: Count
    corners: Count
    mistakes: Annotated[Positive, Meta(description="Present only in suites made with mistakes.")] | UnsetType = UNSET

    def named(self) -> dict[str, int]:
        """By set."""
        return _named(self)


class GeneratorEntry(Document, frozen=True):
    """A generator of a suite's cases."""

    name: str
    provider: Annotated[str, Meta(description="Distribution that provided the generator.")]
    options: Annotated[Json, Meta(description="Options that the generator chose by itself.")]
    made: Count
    kept: Count
    details: Annotated[Json, Meta(description="Other details that it recorded about its cases.")] | UnsetType = UNSET


class LayerEntry(Document, frozen=True):
    """A tap of the victim that is compared."""

    name: str
    neurons: Positive
    unreached: tuple[Count, ...]


class WeightLayerEntry(Document, frozen=True):
    """A layer of the victim whose weights are compared."""

    name: str
    kind: LayerKind
    neurons: Positive
    picked: Annotated[Positive, Meta(description="How many of its neurons are compared.")]


class WeightsEntry(Document, frozen=True):
    """What a suite compares of weights that are never run."""

    family: Annotated[str, Meta(description="Kind of network of the victim.")]
    layers: tuple[WeightLayerEntry, ...]
    ancestor: (
        Annotated[str, Meta(description="What the victim was made from, as its owner says; absent: not stated.")]
        | UnsetType
    ) = UNSET


class KeyEntry(Document, frozen=True):
    """A key of the suite, without anything that is secret."""

    name: Annotated[str, Meta(description="As among the metrics.")]
    scheme: str
    provider: Annotated[str | None, Meta(description="Distribution that provided the scheme; null: not installed.")]
    options: Annotated[Json, Meta(description="Options that it was made with.")]
    digest: Annotated[Sha256, Meta(description="Digest of the key's file, with the secret nonce in it.")]
    trials: Annotated[int, Meta(ge=1, le=2**31)]
    by_design: Annotated[
        bool,
        Meta(
            description=(
                "Whether what counts as a match was drawn at random once everything else was fixed, so that a "
                "p-value needs no controls."
            )
        ),
    ]
    proves: Annotated[
        Proves,
        Meta(
            description=(
                "What a match is evidence of: that a model comes from the marked one, or that it was trained on the "
                "rows that the key chose, or on answers of such a model."
            )
        ),
    ] = "origin"


class CountEntry(Document, frozen=True):
    """How many trials of a key a model matches, by one reading."""

    reading: str
    found: Trials
    of: Trials


class SuiteEntry(Document, frozen=True):
    """What a suite holds, without its arrays."""

    digest: Sha256
    seed: int
    bounds: Annotated[
        tuple[float, float] | None, Meta(description="Least and greatest value of an input; null: there are no cases.")
    ]
    cases: CaseCounts
    generators: tuple[GeneratorEntry, ...]
    layers: Annotated[tuple[LayerEntry, ...], Meta(description="Layers (taps) of the victim that are compared.")]
    notes: Lines
    feature_bounds: (
        Annotated[
            tuple[tuple[float, ...], tuple[float, ...]],
            Meta(description="Least and greatest values of each feature or channel, if these have their own ranges."),
        ]
        | UnsetType
    ) = UNSET
    grid: (
        Annotated[Grid, Meta(description="Steps in which inputs and cases come; absent: in none, or not looked for.")]
        | UnsetType
    ) = UNSET
    labels: (
        Annotated[
            Literal["victim", "several"],
            Meta(
                description=(
                    "Labels are the victim's own answers, or, for inputs with several classes, the class "
                    "that it finds likeliest; absent: the labels of the inputs."
                )
            ),
        ]
        | UnsetType
    ) = UNSET
    inputs: Annotated[Origin, Meta(description="Origin of the seeds; absent: not recorded.")] | UnsetType = UNSET
    weights: Annotated[WeightsEntry, Meta(description="Present only if the suite compares weights.")] | UnsetType = (
        UNSET
    )
    keys: Annotated[tuple[KeyEntry, ...], Meta(description="Present only if the suite has keys.")] | UnsetType = UNSET
    choices: Annotated[Choices, Meta(description="How it was asked for; absent: not recorded.")] | UnsetType = UNSET
    challenge: (
        Annotated[Challenge, Meta(description="Present only if half of the seeds were drawn by a challenge.")]
        | UnsetType
    ) = UNSET


class ApiEntry(Document, frozen=True, kw_only=True):
    """How a model was asked that answers elsewhere."""

    shows: Annotated[Literal["labels", "probabilities"], Meta(description="What it shows of its answers.")]
    top: Annotated[Positive, Meta(description="How many of the greatest scores it gives; absent: all.")] | UnsetType = (
        UNSET
    )
    digits: (
        Annotated[Count, Meta(description="To how many decimal places it rounds scores; absent: not.")] | UnsetType
    ) = UNSET
    queries: Annotated[Count, Meta(description="How many inputs it answered, those of interrupted runs included.")]
    requests: Annotated[Count, Meta(description="How many requests were sent.")]
    failed: Annotated[Count, Meta(description="How many of these got no answer, or none of use.")]
    price: Annotated[
        float, Meta(ge=0, description="What the queries cost, in the unit in which the price of one was stated.")
    ]
    compared: Annotated[
        Mapping[str, Count],
        Meta(description="Each set to its cases that reached the model unchanged: no others are compared."),
    ]
    controls: (
        Annotated[
            Mapping[str, tuple[Distance | None, ...]],
            Meta(
                description=(
                    "Present only if it does not show all: each metric to the distances of the controls, in their "
                    "order, if their answers are reduced in the same way. Its thresholds come from these."
                )
            ),
        ]
        | UnsetType
    ) = UNSET


Api = Annotated[ApiEntry, Meta(description="Present only if the model answers elsewhere.")] | UnsetType


class ControlEntry(Document, frozen=True, kw_only=True):
    """A control."""

    path: str
    digest: Sha256
    framework: str
    isolation: Isolation
    device: Device = None
    files: Files = field(default_factory=dict)
    model_signing: ModelSigning = None
    stratum: Annotated[
        Stratum | None, Meta(description="Stratum: what the control shares with the victim; null: unknown.")
    ] = None
    architecture: (
        Annotated[
            Architecture,
            Meta(
                description=(
                    "Present only if the layers of the controls show several architectures: whether this one has the "
                    "victim's."
                )
            ),
        ]
        | UnsetType
    ) = UNSET
    alike: (
        Annotated[
            str,
            Meta(
                description="Present only if it answers nearly as a control before it and counts with that: its path."
            ),
        ]
        | UnsetType
    ) = UNSET
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
    api: Api = UNSET
    counted: (
        Annotated[
            Mapping[str, tuple[CountEntry, ...]],
            Meta(description="Present only if the suite has keys: each key to what was counted, by every reading."),
        ]
        | UnsetType
    ) = UNSET


class CalibrationEntry(Document, frozen=True, kw_only=True):
    """The controls, and what cannot be concluded from them."""

    controls: tuple[ControlEntry, ...]
    match: Annotated[
        Match,
        Meta(
            description=(
                "How neurons of controls and suspects were matched with the victim's: by position, or by their outputs."
            )
        ),
    ]
    limits: Annotated[
        Lines, Meta(description="What cannot be concluded because controls of a stratum are missing.")
    ] = ()
    notes: Lines
    effective: (
        Annotated[
            int,
            Meta(ge=1, description="Present only if some answer nearly as others do: how many controls that differ."),
        ]
        | UnsetType
    ) = UNSET


class MadeEntry(Document, frozen=True, kw_only=True):
    """When a report was made, by whom, and in which case."""

    date: (
        Annotated[
            str,
            Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", description="Date and time, UTC; absent: not recorded."),
        ]
        | UnsetType
    ) = UNSET
    case: Annotated[str | UnsetType, Meta(description="Name of the case; absent: not given.")] = UNSET
    by: Annotated[str | UnsetType, Meta(description="Who made the report; absent: not given.")] = UNSET


class FleetEntry(Document, frozen=True):
    """All suspects together, where they were judged by a false discovery rate (Benjamini & Hochberg, 1995)."""

    fdr: Annotated[
        Share, Meta(description="Upper limit of the expected share of honest models among those called copies.")
    ]
    tested: Count
    rejected: Annotated[Count, Meta(description="How many of the tested suspects are called copies.")]
    cut: Annotated[Share, Meta(description="The greatest p-value that is called a copy; 0 if there is none.")]


class MetricEntry(Document, frozen=True):
    """What a metric is."""

    group: Group
    needs: Annotated[tuple[AccessName, ...], Meta(description="Access to a model that the metric needs.")]
    upper: Annotated[Upper | None, Meta(description="The greatest possible value; null: unlimited.")]
    provider: Annotated[str, Meta(description="Distribution that provided the metric.")] | UnsetType = UNSET
    title: Annotated[str, Meta(description="The name, spelt out.")] | UnsetType = UNSET
    says: Annotated[str, Meta(description="What its value means, and its unit.")] | UnsetType = UNSET


class SettingEntry(Document, frozen=True, kw_only=True):
    """What was found in one of the settings."""

    decision: Annotated[
        Decided | None,
        Meta(
            description=(
                "null: no metric of this setting was chosen, access or architecture does not allow one, or what could "
                "only accuse found nothing."
            )
        ),
    ]
    p_copy: Share | None
    p_value: Annotated[
        Share | None,
        Meta(
            description=(
                "Upper limit of the probability that an honest model comes as near to the victim; null: "
                "the rule gives none."
            )
        ),
    ] = None
    least_p_value: Annotated[
        Share | None, Meta(description="The smallest p-value that this number of controls could have given.")
    ] = None
    statement: Annotated[str | None, Meta(description="The rule's finding, for readers who are not statisticians.")] = (
        None
    )
    reason: str | None
    log10_p: _Log10P | UnsetType = UNSET
    level: (
        Annotated[
            Share,
            Meta(
                description=(
                    "Of keys: the probability, at most, with which a model made without them is called a copy by any."
                )
            ),
        ]
        | UnsetType
    ) = UNSET


class SettingEntries(Document, frozen=True, rename="kebab"):
    """The settings that a model is judged in."""

    black_box: SettingEntry
    white_box: SettingEntry
    joint: (
        Annotated[SettingEntry, Meta(description="Present only if all metrics are judged by one joint vote.")]
        | UnsetType
    ) = UNSET
    weights: (
        Annotated[SettingEntry, Meta(description="Present only if weights, read and never run, are compared.")]
        | UnsetType
    ) = UNSET
    marks: Annotated[SettingEntry, Meta(description="Present only if the suite has keys.")] | UnsetType = UNSET

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
        Share | None, Meta(description="Upper limit of the probability that an honest model gets a vote for copy.")
    ] = None
    vote: Annotated[bool | None, Meta(description="true: for copy; null: the metric casts no vote; see reason.")]
    reason: str | None
    log10_p: _Log10P | UnsetType = UNSET
    reading: Annotated[str, Meta(description="Of a key: how the model was read.")] | UnsetType = UNSET
    found: Annotated[Trials, Meta(description="Of a key: trials that match.")] | UnsetType = UNSET
    of: Annotated[Trials, Meta(description="Of a key: trials that count.")] | UnsetType = UNSET
    chance: (
        Annotated[
            Annotated[float, Meta(gt=0, lt=1)] | None,
            Meta(
                description=(
                    "Of a key: with which a model made without it matches each trial, by design; null: controls decide."
                ),
            ),
        ]
        | UnsetType
    ) = UNSET
    why: Annotated[str, Meta(description="Of a key: what the chance rests on.")] | UnsetType = UNSET
    least_p_value: (
        Annotated[Share, Meta(description="Of a key: the smallest p-value that it could give.")] | UnsetType
    ) = UNSET

    def __post_init__(self) -> None:
        if self.vote is None and self.reason is None:
            raise ValueError("reason: expected a string, because no vote is cast, found null")


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
            description=(
                "The smallest p-value of its settings, times their number; 1 if the rule cannot decide "
                "at the level that applies."
            )
        ),
    ]
    q_value: Annotated[Share, Meta(description="The lowest rate at which it would be called a copy.")]
    level: Annotated[
        Share,
        Meta(description="The level that the other suspects leave it: it is a copy if its p-value is at most this."),
    ]


class SequentialEntry(Document, frozen=True):
    """What a suspect was asked, case by case."""

    queries: Annotated[Positive, Meta(description="How many cases were asked, each once, including seeds.")]
    budget: Annotated[Positive, Meta(description="How many cases could have been asked.")]
    cases: Annotated[Positive, Meta(description="How many adversarial cases the suite has.")]
    order: Annotated[str, Meta(description="What determines the order of the adversarial cases.")]
    most: Annotated[Count, Meta(description="On how many of those an honest model makes the victim's error, at most.")]
    e_copy: Annotated[
        float | None,
        Meta(description="Greatest e-value against at most that many; null: infinite, there were more."),
    ]
    e_independent: Annotated[
        float | None, Meta(description="Greatest e-value against more; null: infinite, there cannot be more.")
    ]
    asked: Annotated[
        tuple[Count, ...],
        Meta(
            description=(
                "Rows of the suite's cases in the order in which they were asked: adversarial cases and seeds."
            )
        ),
    ]
    labels: Annotated[tuple[Count, ...], Meta(description="The suspect's answer to each, as a class of the victim.")]


class DrawnEntry(Document, frozen=True, kw_only=True):
    """What is said of a suspect by the cases alone that a challenge drew."""

    decision: SuspectDecision
    points_to: PointsTo | None
    settings: SettingEntries
    metrics: Results
    reason: str | None


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
    drawn: Annotated[DrawnEntry, Meta(description="Present only if the suite has a challenge.")] | UnsetType = UNSET
    published: (
        Annotated[
            str,
            Meta(
                pattern=r"^\d{4}-\d\d-\d\d$",
                description="Since when the model has been public, as the report's maker says; absent: not stated.",
            ),
        ]
        | UnsetType
    ) = UNSET
    tested: (
        Annotated[
            FdrEntry | None, Meta(description="Present only with a false discovery rate; null: it could not be tested.")
        ]
        | UnsetType
    ) = UNSET
    sequential: (
        Annotated[SequentialEntry, Meta(description="Present only if cases were asked one by one.")] | UnsetType
    ) = UNSET
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
    api: Api = UNSET
    stored: (
        Annotated[
            bool,
            Meta(
                description="True: it was not asked in this run. The person who stored its answers claims "
                "what they are, and its digest, format and isolation. Absent: it was asked."
            ),
        ]
        | UnsetType
    ) = UNSET

    def __post_init__(self) -> None:
        if self.decision in ("inconclusive", "failed") and self.reason is None:
            raise ValueError(f"reason: expected a string, because the decision is {self.decision}, found null")


Made = Annotated[MadeEntry, Meta(description="Absent: not recorded.")] | UnsetType


class CommittedEntry(Document, frozen=True):
    """Since when it has been fixed how suspects are judged, as an authority's time-stamp says."""

    date: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", description="Date and time, UTC.")]
    commitment: Annotated[Sha256, Meta(description="SHA-256 of the commitment.")]
    before: Annotated[
        bool,
        Meta(description="Whether, by the clock of the log, every suspect was asked after it; false: not, or unknown."),
    ]


class DatedEntry(Document, frozen=True):
    """Since when the victim has existed, as a commitment to it shows."""

    commitment: Annotated[Sha256, Meta(description="SHA-256 of the commitment to the victim.")]
    date: (
        Annotated[
            str,
            Meta(
                pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$",
                description="Date and time of an authority's time-stamp, UTC; absent: none, so nothing shows a date.",
            ),
        ]
        | UnsetType
    ) = UNSET


class SkippedEntry(Document, frozen=True):
    """A file in a folder of suspects that was not taken as a model."""

    name: str
    code: Annotated[SkipCode, Meta(description="Why.")]
    reason: Annotated[str, Meta(description="The reason in words.")]
    unjudged: Annotated[bool, Meta(description="Whether it may hold a model, which was then not judged.")]


class AuditReport(Document, frozen=True, kw_only=True, tag_field="schema", tag=AUDIT):
    """What came of an audit: one victim, one suite, any number of suspects."""

    deepjudge: Version
    made: Made = UNSET
    committed: (
        Annotated[CommittedEntry, Meta(description="Present only in bundles with a time-stamped commitment.")]
        | UnsetType
    ) = UNSET
    dated: (
        Annotated[DatedEntry, Meta(description="Present only in bundles with a commitment to the victim.")] | UnsetType
    ) = UNSET
    chosen: (
        Annotated[
            Json,
            Meta(
                description=(
                    "Options of the suite and of the judgement that are not those of the standard profile; empty: "
                    "none; absent: not recorded."
                )
            ),
        ]
        | UnsetType
    ) = UNSET
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
        Meta(
            description=(
                "What was measured: each metric with its description, whether or not a suspect could be judged."
            )
        ),
    ]
    suspects: tuple[Annotated[SuspectEntry, _UNDECIDED], ...]
    skipped: (
        Annotated[
            tuple[SkippedEntry, ...],
            Meta(description="Present only if some files in folders of suspects were not used as models."),
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
    weights: Annotated[ShareEntry, Meta(description="Present only if weights are compared.")] | UnsetType = UNSET
    marks: Annotated[ShareEntry, Meta(description="Present only if the suite has keys.")] | UnsetType = UNSET

    def named(self) -> dict[str, ShareEntry]:
        """By setting."""
        return _named(self)


class GroupCounts(Document, frozen=True, rename="kebab"):
    """A number in each setting."""

    black_box: Count
    white_box: Count
    weights: Annotated[Count, Meta(description="Present only if weights are compared.")] | UnsetType = UNSET
    marks: Annotated[Count, Meta(description="Present only if the suite has keys.")] | UnsetType = UNSET

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
    title: Annotated[str, Meta(description="What the thief did.")] | UnsetType = UNSET


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
    decisions: Annotated[Mapping[str, SuspectDecision], Meta(description="Each model's file to the rule's decision.")]


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
        Annotated[
            tuple[RuleEntry, ...],
            Meta(description="Present only with several rules; the first is the one used elsewhere in the report."),
        ]
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
    what = f"a deepjudge report, such as report.json from {command('audit', 'audit()')}"
    return report_of(read_json(path, what), str(path))


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
