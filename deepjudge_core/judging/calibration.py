"""The controls: models known to be independent of the victim, and how far they are from it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.components.schemes import Matches
from deepjudge_core.components.strata import (
    OTHER_ARCHITECTURE,
    SAME_ARCHITECTURE,
    SHARING,
    Stratum,
    parts_of,
    product,
    stratum_of,
    two_groups,
)
from deepjudge_core.errors import CalibrationError, FileFormatError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.files.documents import Lines, Part, parse, plain
from deepjudge_core.judging.accuracy import Accuracy, accuracy_on_seeds, is_far
from deepjudge_core.judging.architecture import Widths, kind_of, widths
from deepjudge_core.judging.fitting import metrics_for
from deepjudge_core.judging.likeness import Likeness
from deepjudge_core.judging.measure import Measured, Measurements, accuracy_of, measure_by
from deepjudge_core.judging.neurons import DEFAULT_MATCH, Match
from deepjudge_core.judging.transfer import transfer
from deepjudge_core.judging.view import View, unfit_whole
from deepjudge_core.models.model import Access
from deepjudge_core.naming import command, option
from deepjudge_core.sheets import Cell, Sheet, Shown
from deepjudge_core.suites.keys import names_of
from deepjudge_core.suites.observation import Observation, ObservationHeader, unsaturated
from deepjudge_core.suites.suite import Suite, check_suite
from deepjudge_core.text import counted
from deepjudge_core.types import Array

LEAST_CONTROLS = 3
SPREAD_UNKNOWN = "nothing is known of how honest models differ"
"""What follows from controls that are all at one distance."""
_NO_SPREAD = 1e-6  # of the greatest: what rounding leaves of distances that are the same
_SAME = (
    1e-5  # answers whose probabilities differ by less come from one model, whatever the file format; layers likewise
)
_SATURATED = 0.999  # a probability above this is one that all good models give


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Shown):
    """The controls' answers and values.

    Attributes:
        suite: Digest of the suite that they answered.
        controls: Their answers, each model once.
        measurements: Their values, in the same order.
        notes: What a reader should know: controls counted once, for instance.
        match: How neurons were put beside the victim's, of controls and so of suspects.
        strata: Of each control its stratum, as it was said, None where that is not known; empty where none is known.
        clusters: Of each control the place of the first that it is a near-duplicate of, its own where it is of none;
            empty where nobody looked.
        doubtful: Places of controls that look like copies of the victim.
        architecture: The victim's; None where its layers cannot be seen.
        derived: Notes that follow from the answers and that the file, which may be anybody's, does not have.
    """

    suite: str
    controls: tuple[Observation, ...]
    measurements: tuple[Measurements, ...]
    notes: tuple[str, ...] = ()
    match: Match = DEFAULT_MATCH
    strata: tuple[Stratum | None, ...] = ()
    derived: tuple[str, ...] = ()
    clusters: tuple[int, ...] = ()
    doubtful: tuple[int, ...] = ()
    architecture: Widths | None = None

    def __post_init__(self) -> None:
        if not self.clusters:
            object.__setattr__(self, "clusters", tuple(range(len(self.controls or self.measurements))))
        if self.controls and len(self.clusters) != len(self.controls):
            raise ValueError(f"expected {len(self.controls)} clusters, found {len(self.clusters)}")

    @cached_property
    def differing(self) -> tuple[int, ...]:
        """Places of the controls that differ: of near-duplicates, which count as one, that of the first."""
        return tuple(dict.fromkeys(self.clusters))

    @property
    def effective(self) -> int:
        """How many controls there are that differ."""
        return len(self.differing)

    @property
    def fewer(self) -> int | None:
        """How many controls there are that differ, where some do not; None where all do."""
        return self.effective if self.effective < len(self.clusters) else None

    @property
    def doubt(self) -> str | None:
        """Why nobody is independent by these controls: one line; None where nothing speaks against them."""
        if not self.doubtful:
            return None
        names = ", ".join(self.controls[place].model.name for place in self.doubtful)
        several = len(self.doubtful) > 1
        return (
            f"the {'controls' if several else 'control'} {names} {'answer' if several else 'answers'} more like the "
            "victim than like other controls. A copy among the controls hides copies: leave it out, or judge it as a "
            "suspect"
        )

    @cached_property
    def kinds(self) -> tuple[Stratum | None, ...]:
        """Of each control its stratum, as it was said and as its layers show its architecture."""
        strata = self.strata or (None,) * len(self.clusters)
        own = [widths(control.model) for control in self.controls] or [None] * len(self.clusters)
        return tuple(kind_of(each, one, self.architecture) for each, one in zip(strata, own, strict=True))

    @cached_property
    def several_architectures(self) -> bool:
        """Whether some controls have the victim's architecture and others do not."""
        return {SAME_ARCHITECTURE, OTHER_ARCHITECTURE} <= frozenset[str]().union(*map(parts_of, self.kinds))

    @property
    def divided(self) -> tuple[Stratum | None, ...]:
        """By which strata rules judge: an architecture that all controls have divides none of them."""
        return self.kinds if self.several_architectures else self.strata

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all of it but the values, which follow from the rest."""
        return _content(self).digest

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        names = list(self.measurements[0]) if self.measurements else []
        strata = self.strata or (None,) * len(self.controls)
        rows: list[tuple[Cell, ...]] = [
            (control.model.name, stratum or "-", *(values[name].value for name in names))
            for control, stratum, values in zip(self.controls, strata, self.measurements, strict=True)
        ]
        count = self.fewer and str(self.fewer)
        facts = {"count as": count, "match": self.match, "note": self.notes, "suite": self.suite}
        return Sheet(f"calibration of {len(self.controls)} controls", facts, ("control", "stratum", *names), rows)

    def values(self, metric: str) -> Array:
        """``(n,)`` float64 values of a metric over the controls that it could be measured on.

        Near-duplicates are one control, which is as near to the victim as the nearest of them: their number shows
        nothing of how honest models differ.
        """
        return self._column(metric)[1].copy()  # rules are anybody's code

    def places(self, metric: str) -> tuple[int, ...]:
        """The places of the controls that :meth:`values` has, of near-duplicates that of the first."""
        return self._column(metric)[0]

    @cached_property
    def accuracies(self) -> tuple[Accuracy | None, ...]:
        """Of each control its accuracy on the seeds; None where it is not known."""
        return tuple(map(accuracy_of, self.measurements))

    @cached_property
    def _columns(self) -> dict[str, tuple[tuple[int, ...], Array]]:
        # Of each metric that was asked for: many suspects are judged by the same controls.
        return {}

    def _column(self, metric: str) -> tuple[tuple[int, ...], Array]:
        if metric not in self._columns:
            nearest: dict[int, float] = {}
            for cluster, measured in zip(self.clusters, self.measurements, strict=True):
                value = measured[metric].value if metric in measured else None
                if value is not None:
                    nearest[cluster] = min(value, nearest.get(cluster, value))
            places = tuple(sorted(nearest))
            self._columns[metric] = places, np.array([nearest[place] for place in places], dtype=np.float64)
        return self._columns[metric]

    def siblings(self, without: int | None = None) -> tuple[Observation, ...]:
        """The controls that come from the victim's ancestor and show their weights.

        Args:
            without: The place of a control that is left out, since it is the one that is measured.
        """
        return tuple(
            control
            for place, (control, stratum) in enumerate(zip(self.controls, self.strata, strict=False))
            if "common-ancestor" in parts_of(stratum) and control.weights is not None and place != without
        )

    def only(self, places: Sequence[int]) -> "Calibration":
        """The same of some of the controls, by their places."""
        clusters = [self.clusters[place] for place in places]
        return replace(
            self,
            controls=tuple(self.controls[place] for place in places),
            measurements=tuple(self.measurements[place] for place in places),
            strata=tuple(self.strata[place] for place in places) if self.strata else (),
            clusters=tuple(map(clusters.index, clusters)),
            doubtful=tuple(number for number, place in enumerate(places) if place in self.doubtful),
        )

    def without(self, place: int) -> "Calibration":
        """The same but for one control, by its place, and its near-duplicates."""
        kept = [other for other, cluster in enumerate(self.clusters) if cluster != self.clusters[place]]
        others, moved = self.only(kept), {other: number for number, other in enumerate(kept)}
        # Not gathered from all others again: each of hundreds is left out in turn.
        for metric, (places, values) in self._columns.items():
            left = [number for number, other in enumerate(places) if other in moved]
            others._columns[metric] = tuple(moved[places[number]] for number in left), values[left]
        return others

    def through(self, view: View, suite: Suite) -> "Calibration":
        """The same controls, of whose answers no more is compared than a view shows.

        Args:
            view: As much as a suspect shows of itself.
            suite: The suite.
        """
        return _through(self, view, suite)

    def shortage(self, metric: str) -> str:
        """Why there are too few values of a metric."""
        if not self.controls:
            return "there are no controls"
        reasons = {c[metric].reason for c in self.measurements if metric in c and c[metric].reason}
        why = f" ({'; '.join(sorted(filter(None, reasons)))})" if reasons else ""
        once = "; near-duplicates count as one" if self.fewer else ""
        return f"measured on {len(self.values(metric))} controls, expected at least {LEAST_CONTROLS}{once}{why}"


# A fleet may have many suspects behind interfaces that show as much: their controls are measured once.
@lru_cache(maxsize=8)
def _through(calibration: Calibration, view: View, suite: Suite) -> Calibration:
    seen = []
    for control, known in zip(calibration.controls, calibration.measurements, strict=True):
        metrics = [one.metric for one in known.values() if not one.metric.of_weights and one.metric.on != "keys"]
        again = measure_by(metrics, suite, control, calibration.match, view=view, control=True)
        facts = next(iter(again.values()), None)
        rest = {
            name: one
            if facts is None
            else replace(one, accuracy=facts.accuracy, alike=facts.alike, ordinary=facts.ordinary)
            for name, one in known.items()
        }
        values = {name: again.get(name, one) for name, one in rest.items()}
        seen.append(Measured(values, suite))
    return replace(calibration, measurements=tuple(seen))


def calibrate(
    suite: Suite,
    controls: Sequence[Observation],
    metrics: Iterable[str] | None = None,
    *,
    match: Match = DEFAULT_MATCH,
    strata: Sequence[Stratum | None] = (),
    far: bool = False,
    registry: Registry | None = None,
) -> Calibration:
    """Measure the controls.

    Args:
        suite: The suite.
        controls: Their answers; a model that is given twice, in whatever formats, is counted once.
        metrics: Names of metrics, "all" for every installed one; by default those that are taken without a name.
        match: How neurons are put beside the victim's, of the controls and later of every suspect.
        strata: Of each control its stratum, None where that is not known; by default of all.
        far: Whether controls far less accurate than the victim set thresholds, too.
        registry: Where the metrics are; by default every installed one.

    Raises:
        CalibrationError: When a control is the victim, or its copy in another format; or one model is said to be of two
            strata.
        FileFormatError: When a control answered another suite.
    """
    return calibrate_by(
        metrics_for((registry or load_registry()).metrics, metrics, suite),
        suite,
        controls,
        match=match,
        strata=strata,
        far=far,
    )


def calibrate_by(
    metrics: Sequence[Metric],
    suite: Suite,
    controls: Sequence[Observation],
    *,
    match: Match = DEFAULT_MATCH,
    strata: Sequence[Stratum | None] = (),
    far: bool = False,
    notes: Sequence[str] = (),
) -> Calibration:
    """Measure the controls; as :func:`calibrate`, by metrics that were looked up.

    Args:
        notes: What a reader should know of them, before what is found of them here.
    """
    models: list[Observation] = []
    model_strata: list[Stratum | None] = []
    notes = list(notes)
    surrogates = {digest for key in suite.keys for digest in key.surrogates}
    for control, stratum in zip(controls, strata or [None] * len(controls), strict=True):
        check_suite(suite, control)
        if control.model.digest in surrogates:
            raise CalibrationError(
                f"{control.model.name}: expected a model independent of the victim, found one of the stolen models "
                "that a key of the suite was made with; leave it out of the controls"
            )
        if _is_same(control, suite.victim):
            raise CalibrationError(
                f"{control.model.name}: expected a model independent of the victim, found one that gives "
                "exactly the victim's answers; leave it out of the controls, and judge it as a suspect"
            )
        accuracy = accuracy_on_seeds(suite, control)
        if accuracy and is_far(accuracy, suite) and not far:
            whose = f" accuracy of {suite.accuracy:.1%}" if suite.label_origin == "inputs" else ""
            notes.append(
                f"{control.model.name}: left out: it classifies {accuracy.share:.1%} of the seeds "
                f"correctly, which is far below the victim's{whose}; {option('far', True)} counts it"
            )
            continue
        place = next((place for place, model in enumerate(models) if _is_same(control, model)), None)
        if place is None:
            models.append(control)
            model_strata.append(_one_stratum(control, stratum))
            if control.unsteady:
                notes.append(f"{control.model.name}: {control.unsteady}; thresholds that depend on it are doubtful")
        else:
            notes.append(f"{control.model.name}: is the same model as {models[place].model.name}, counted once")
            model_strata[place] = _one_stratum(control, model_strata[place], stratum)
    notes += filter(None, [transfer(suite, models)])
    notes += _references(suite, models)
    likeness = Likeness.of(suite, models, [bool(SHARING & parts_of(stratum)) for stratum in model_strata])
    calibration = Calibration(
        suite.digest,
        tuple(models),
        (),
        match=match,
        strata=tuple(model_strata),
        clusters=likeness.clusters,
        doubtful=likeness.doubtful,
        architecture=widths(suite.victim.model),
    )
    notes += filter(None, [calibration.doubt])
    notes += _alike(calibration)
    notes += _unlike(calibration)
    measurements = tuple(
        measure_by(metrics, suite, model, match, calibration.siblings(without=place), control=True)
        for place, model in enumerate(models)
    )
    calibration = replace(calibration, measurements=measurements)
    distances = [metric.name for metric in metrics if metric.on != "keys"]  # of which a few numbers are all there is
    groups = {name: two_groups(calibration.values(name)) for name in distances}
    notes += (f"{name}: {clause}. Are these two kinds of models?" for name, clause in groups.items() if clause)
    notes += _shared(suite, calibration)
    return replace(calibration, notes=tuple(notes))


def has_spread(distances: Array) -> bool:
    """Whether controls are at different distances, which alone shows how honest models differ.

    Args:
        distances: ``(n,)``, at least one, none below 0.
    """
    return bool(np.ptp(distances) > _NO_SPREAD * distances.max())


def _alike(calibration: Calibration) -> Iterator[str]:
    # Near-duplicates, which count as one.
    names = [control.model.name for control in calibration.controls]
    for first in calibration.differing:
        alike = [name for name, cluster in zip(names, calibration.clusters, strict=True) if cluster == first]
        if len(alike) > 1:
            yield f"{', '.join(alike)} answer nearly alike, so they count as one control"


def _unlike(calibration: Calibration) -> Iterator[str]:
    # Controls that are not of the architecture that was said.
    for control, said, kind in zip(calibration.controls, calibration.strata, calibration.kinds, strict=True):
        if SAME_ARCHITECTURE in parts_of(said) and OTHER_ARCHITECTURE in parts_of(kind):
            yield (
                f"{control.model.name}: is said to be {SAME_ARCHITECTURE}, and counts as {OTHER_ARCHITECTURE}: its "
                "layers have other widths"
            )


def _references(suite: Suite, models: Sequence[Observation]) -> Iterator[str]:
    # What a key was chosen to tell from the victim matches it less than other honest models do.
    for name, key in zip(names_of(suite.keys), suite.keys, strict=True):
        count = sum(model.model.digest in key.references for model in models) if key.chance is None else 0
        if count:
            yield (
                f"{name}: {counted(count, 'control')} of {len(models)} cannot show how honest models match this key, "
                "because it was made with them"
            )


def _shared(suite: Suite, calibration: Calibration) -> Iterator[str]:
    # A key that honest models match, too, tells little of a copy.
    for name, key in zip(names_of(suite.keys), suite.keys, strict=True):
        if key.chance is not None:
            continue
        readings = [one[name].readings for one in calibration.measurements if name in one]
        shares = [max(one.found / one.of for one in each if isinstance(one, Matches)) for each in readings if each]
        many = sum(share > 0.5 for share in shares)
        if many:
            yield (
                f"{name}: {counted(many, 'control')} of {len(shares)} match more than half of the trials, the nearest "
                f"{max(shares):.0%}: a copy has to match still more to be told apart"
            )


def check_not_a_control(calibration: Calibration, suspect: Observation) -> None:
    """Refuse a suspect that is one of the controls.

    Raises:
        CalibrationError: Naming both.
    """
    for control in calibration.controls:
        if _is_same(suspect, control):
            raise CalibrationError(
                f"{suspect.model.name}: expected a suspect, found the control {control.model.name}; a "
                "model cannot be both: leave it out of the controls to judge it"
            )


@dataclass(frozen=True, eq=False)
class Controls:
    """What a calibration file holds: its suite, the controls' answers and strata, notes, how neurons are matched."""

    suite: str
    observations: tuple[Observation, ...]
    notes: tuple[str, ...]
    match: Match
    strata: tuple[Stratum | None, ...] = ()


class _CalibrationHeader(Part, frozen=True):
    # A calibration without its arrays.
    suite: str
    controls: tuple[ObservationHeader, ...]
    notes: Lines
    match: Match
    strata: tuple[Stratum | None, ...] = ()  # before there were any, files had none

    def __post_init__(self) -> None:
        if len(self.strata) not in (0, len(self.controls)):
            raise ValueError(
                f"strata: expected one for each of the {len(self.controls)} controls, found {len(self.strata)}"
            )


def save_calibration(path: Path | str, calibration: Calibration) -> None:
    """Write the controls' answers; their values are computed anew by whoever reads them.

    Raises:
        FileFormatError: When it cannot be written.
    """
    storage.write(Path(path), _content(calibration))


def _content(calibration: Calibration) -> storage.Content:
    header = _CalibrationHeader(
        suite=calibration.suite,
        controls=tuple(control.header() for control in calibration.controls),
        notes=calibration.notes,
        match=calibration.match,
        strata=calibration.strata,
    )
    arrays: dict[str, Array] = {}
    for place, control in enumerate(calibration.controls):
        arrays |= control.arrays(f"controls.{place}.")
    return storage.seal("calibration", plain(header), arrays)


def load_controls(path: Path | str) -> Controls:
    """Read the controls' answers, without measuring them.

    Raises:
        FileFormatError: When the file is damaged or another.
    """
    content = storage.read(Path(path), ["calibration"])
    try:
        header = parse(_CalibrationHeader, content.header)
        observations = tuple(
            Observation.of_header(control, content.arrays, f"controls.{place}.")
            for place, control in enumerate(header.controls)
        )
    except (KeyError, ValueError) as error:
        raise FileFormatError(f"{path}: the calibration is incomplete: {error}", code="damaged-file") from None
    return Controls(header.suite, observations, header.notes, header.match, header.strata)


def load_calibration(
    path: Path | str, suite: Suite, metrics: Iterable[str] | None = None, *, registry: Registry | None = None
) -> Calibration:
    """Read the controls' answers and measure them.

    Raises:
        FileFormatError: When the file is damaged, another, or of another suite.
        CalibrationError: As :func:`calibrate`.
    """
    return read_calibration(metrics_for((registry or load_registry()).metrics, metrics, suite), Path(path), suite)


def read_calibration(metrics: Sequence[Metric], path: Path, suite: Suite) -> Calibration:
    """Read the controls' answers and measure them; as :func:`load_calibration`, by metrics that were looked up."""
    controls = load_controls(path)
    if controls.suite != suite.digest:
        raise FileFormatError(
            f"{path}: expected a calibration of the suite {suite.digest[:12]}, found one of the suite "
            f"{controls.suite[:12]}; name the suite that it was made for, or ask the controls again: "
            f"{command('calibrate SUITE CONTROL... -o FILE', 'calibrate(controls, suite)')}"
        )
    # Who was left out is not in the file.
    calibration = calibrate_by(
        metrics, suite, controls.observations, match=controls.match, strata=controls.strata, far=True
    )
    # Nor can it silence what its own answers show.
    derived = tuple(note for note in calibration.notes if note not in controls.notes)
    return replace(calibration, notes=controls.notes, derived=derived)


def _one_stratum(control: Observation, *strata: Stratum | None) -> Stratum | None:
    try:
        return product(*(None if stratum is None else stratum_of(stratum) for stratum in strata))
    except UsageError as error:
        raise CalibrationError(f"{control.model.name}: strata: {error}") from None


def _is_same(one: Observation, other: Observation) -> bool:
    if one.model.digest == other.model.digest:
        return True
    # Of models with other classes than the victim's, nothing but the digest tells.
    if one.probabilities is None or other.probabilities is None:
        return False
    # The first case tells most models apart, of which there may be hundreds.
    if len(one.probabilities) and float(np.abs(one.probabilities[0] - other.probabilities[0]).max()) >= _SAME:
        return False
    # Models that give labels only, or rounded scores, may well agree in all of them.
    if not all(Access.PROBABILITIES in model.model.access and not unfit_whole(model) for model in (one, other)):
        return False
    if float(np.abs(one.probabilities - other.probabilities).max()) >= _SAME:
        return False
    return len(unsaturated(one, _SATURATED)) > 0 or _have_same_layers(one, other)


def _have_same_layers(one: Observation, other: Observation) -> bool:
    # What tells models apart whose probabilities are saturated.
    layers = one.activations.keys() & other.activations.keys()
    return bool(layers) and all(
        one.activations[layer].shape == other.activations[layer].shape
        and bool(
            (
                np.abs(one.activations[layer] - other.activations[layer])
                <= _SAME * np.abs(one.activations[layer]).max()
            ).all()
        )
        for layer in layers
    )
