"""Figures as SVG: strip plots, radar charts, ROC curves.

Readable without colours: controls are hollow and suspects filled, each stratum and each decision has a shape of its
own, and lines differ by their dashes. Texts are escaped by the library that writes the elements.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from deepjudge_core.report.pages.palette import PAINTS
from deepjudge_core.report.pages.similarity import AT_THRESHOLD
from deepjudge_core.text import clean, number

_FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', 'DejaVu Sans', sans-serif"
_CHARACTER = 6.4  # width of one at 11 px, on average and generously
_SHAPES = ("circle", "triangle", "square", "diamond", "down", "cross")
_LEAST_POWER = -300  # of ten, on an axis: below some -308 floats have none
DECISION_SHAPES = {"copy": "square", "independent": "circle", "inconclusive": "diamond", "failed": "down"}


@dataclass(frozen=True)
class Mark:
    """A model in a strip plot.

    Attributes:
        value: Its distance, at least 0.
        label: What stands beside it.
        decision: What was decided of it.
    """

    value: float
    label: str
    decision: str


@dataclass(frozen=True)
class Row:
    """Models of one kind, without labels of their own, in a strip plot.

    Attributes:
        label: What they are called.
        values: Their distances.
        stolen: Whether they are known to be copies: their marks are filled, those of controls hollow.
    """

    label: str
    values: Sequence[float]
    stolen: bool = False


class _Svg:
    # An element that says what it shows to who does not see it.

    def __init__(self, name: str, width: float, title: str, description: str) -> None:
        self.root = ElementTree.Element("svg", {"role": "img", "aria-labelledby": f"{name}-title {name}-desc"})
        self.root.set("font-family", _FONT)
        self.root.set("font-size", "11")
        ElementTree.SubElement(self.root, "title", {"id": f"{name}-title"}).text = clean(title)
        ElementTree.SubElement(self.root, "desc", {"id": f"{name}-desc"}).text = clean(description, 1000)
        self.width = width

    def add(self, tag: str, paint: str, **attributes: str | float) -> ElementTree.Element:
        plain = {name.replace("_", "-"): _plain(value) for name, value in attributes.items()}
        return ElementTree.SubElement(self.root, tag, {"class": f"p-{paint}", **PAINTS[paint].attributes(), **plain})

    def text(self, x: float, y: float, text: str, paint: str = "note", anchor: str = "start") -> None:
        self.add("text", paint, x=x, y=y, text_anchor=anchor).text = clean(text)

    def line(self, paint: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self.add("line", paint, x1=x1, y1=y1, x2=x2, y2=y2)

    def shape(self, kind: str, paint: str, x: float, y: float, r: float) -> None:
        if kind == "circle":
            self.add("circle", paint, cx=x, cy=y, r=r)
            return
        corners = {
            "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
            "triangle": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
            "down": [(0, 1.2), (1.15, -0.9), (-1.15, -0.9)],
        }
        if kind == "cross":
            path = f"M{_plain(x - r)} {_plain(y - r)}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}"
            self.add("path", paint, d=path)
            return
        self.polygon(paint, [(x + r * dx, y + r * dy) for dx, dy in corners[kind]])

    def polygon(self, paint: str, points: Iterable[tuple[float, float]]) -> None:
        self.add("polygon", paint, points=" ".join(f"{_plain(x)},{_plain(y)}" for x, y in points))

    def done(self, height: float) -> str:
        self.root.set("viewBox", f"0 0 {_plain(self.width)} {_plain(height)}")
        self.root.set("width", _plain(self.width))
        self.root.set("height", _plain(height))
        return ElementTree.tostring(self.root, encoding="unicode")


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}"


class _Scale:
    # From values to places on an axis. What is too small for a logarithmic one has a place of its own at its left end.

    def __init__(self, values: Sequence[float], marks: Sequence[float], left: float, right: float) -> None:
        """For all ``values``, of which ``marks`` have to be told apart."""
        self._left, self._right = left, right
        self._most = max([*values, *marks], default=0.0) or 1.0
        least = min((value for value in marks if value > 0), default=self._most)
        self.logarithmic = least / self._most < 0.04
        self._start = left
        self._low = 0.0
        if self.logarithmic:
            self._low = max(math.floor(math.log10(least)) - 1, _LEAST_POWER)
            self._high = math.log10(self._most)
            self.below = [value for value in values if value < 10.0**self._low]
            self._start = left + 46 if self.below else left

    def place(self, value: float) -> float:
        if not self.logarithmic:
            return self._left + value / self._most * (self._right - self._left)
        if value < 10.0**self._low:
            return self._left + 12
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._right - self._start)

    def ticks(self) -> list[tuple[float, str]]:
        if not self.logarithmic:
            return [(self.place(tick), number(tick)) for tick in _round_numbers(self._most)]
        powers = range(int(self._low), math.floor(self._high) + 1)
        step = math.ceil(len(powers) / 6)
        ticks = [(self.place(10.0**power), f"{10.0**power:g}") for power in powers[::step]]
        if self.below:
            ticks.insert(0, (self._left + 12, "0" if not any(self.below) else f"< {10.0**self._low:g}"))
        return ticks


def _round_numbers(most: float) -> list[float]:
    # From 0 to the greatest value, in steps of 1, 2 or 5 times a power of ten.
    exponent = math.floor(math.log10(most)) - 1
    if not -290 < exponent < 290:
        return [0.0, most]
    unit = 10.0**exponent
    step = next(step * unit for step in (1, 2, 5, 10, 20, 50) if most / (step * unit) <= 6)
    return [place * step for place in range(int(most / step) + 1)]


_GUTTER, _STRIP = 150.0, 900.0
_MOST_LABELS, _MOST_LANES, _LANE, _BIN = 200, 7, 14.0, 34.0


def strip(name: str, metric: str, suspects: Sequence[Mark], kinds: Sequence[Row], thresholds: Sequence[float]) -> str:
    """One metric of all models on an axis; smaller is nearer to the victim.

    Args:
        name: Of the figure; unique on the page.
        metric: What was measured.
        suspects: A filled mark each, with its label.
        kinds: A row of marks each.
        thresholds: Dashed lines: the one, or the least and the greatest. What is shaded is below all.
    """
    svg = _Svg(name, _STRIP, *_counts(metric, f"Distance from the victim by {metric}", suspects, kinds))
    distances = [value for row in kinds for value in row.values]
    nearest = min((value for row in kinds if not row.stolen for value in row.values), default=None)
    references = [*thresholds, *([] if nearest is None else [nearest])]
    scale = _Scale([*distances, *(mark.value for mark in suspects)], references, _GUTTER, _STRIP - 26)
    zone = (_GUTTER, scale.place(min(thresholds))) if thresholds else None
    bottom = _rows(svg, scale, suspects, kinds, thresholds, zone)
    svg.text(0, bottom + 15, f"{_short(metric, 14)}{', log' if scale.logarithmic else ''}", "text")
    svg.text(_GUTTER, bottom + 31, "\u2190 more like the victim")
    if thresholds:
        x = min(max(scale.place(max(thresholds)), _GUTTER + 240), _STRIP - 100)
        says = "dashed: threshold " + " to ".join(map(number, sorted(thresholds)))
        svg.text(x, bottom + 31, says, "text", "middle")
    return svg.done(bottom + 38)


def matches(
    name: str,
    key: str,
    trials: int,
    suspects: Sequence[Mark],
    kinds: Sequence[Row],
    band: tuple[int, int] | None,
    needed: int | None,
) -> str:
    """How many trials of a key all models match; more is nearer to the marked model.

    Args:
        name: Of the figure; unique on the page.
        key: The key.
        trials: How many there are.
        suspects: A filled mark each, with its label.
        kinds: A row of marks each.
        band: How many models made without the key match by chance; None where that is not known.
        needed: From how many on a suspect is accused; None where that is not known.
    """
    svg = _Svg(name, _STRIP, *_counts(key, f"Trials of the key {key} that match, of {trials}", suspects, kinds))
    # The end of the axis is the number of trials, so that nothing is far from it or near to it by the scale alone.
    scale = _Scale([float(trials)], [float(trials)], _GUTTER, _STRIP - 26)
    zone = None if needed is None else (scale.place(needed), _STRIP - 26)
    bottom = _rows(svg, scale, suspects, kinds, [] if needed is None else [needed], zone, band)
    svg.text(0, bottom + 15, _short(key, 20), "text")
    svg.text(_STRIP - 26, bottom + 31, "more like the marked model \u2192", "note", "end")
    says = [] if band is None else [f"band: made without it, {band[0]} to {band[1]}"]
    says += [] if needed is None else [f"dashed: a vote for copy from {needed} on"]
    svg.text(_GUTTER, bottom + 31, "; ".join(says), "text")
    return svg.done(bottom + 38)


def _counts(what: str, of: str, suspects: Sequence[Mark], kinds: Sequence[Row]) -> tuple[str, str]:
    # The title and the description of a chart.
    stolen, controls = (sum(len(row.values) for row in kinds if row.stolen is is_stolen) for is_stolen in (True, False))
    counted = {"suspects": len(suspects), "stolen models": stolen, "controls": controls}
    counts = ", ".join(f"{count} {what}" for what, count in counted.items() if count)
    return f"{what}: {counts}", f"{of}: {counts}. The tables have all values."


def _rows(
    svg: _Svg,
    scale: _Scale,
    suspects: Sequence[Mark],
    kinds: Sequence[Row],
    lines: Sequence[float],
    zone: tuple[float, float] | None,
    band: tuple[float, float] | None = None,
) -> float:
    # Suspects with their labels in one row, the others below, and an axis, whose place is returned.
    labels = _labels([(scale.place(mark.value), mark) for mark in suspects])
    lanes = max((label.lane for label in labels), default=-1) + 1
    # No line but a label's own goes up to where labels stand.
    top = 6 + lanes * _LANE
    rows = [top + 14] if suspects else []
    rows += [(rows[0] if suspects else top - 8) + 24 * (place + 1) for place in range(len(kinds))]
    bottom = (rows[-1] if rows else 20) + 18
    if zone:
        svg.add("rect", "zone", x=zone[0], y=top, width=zone[1] - zone[0], height=bottom - top)
    if band:
        left, right = map(scale.place, band)
        svg.add("rect", "band", x=left, y=top, width=right - left, height=bottom - top)
    ticks = scale.ticks()
    for x, _ in ticks:
        svg.line("grid", x, top, x, bottom)
    if suspects:
        svg.text(0, rows[0] + 4, "suspects", "text")
    for row, y in zip(kinds, rows[bool(suspects) :], strict=True):
        svg.text(0, y + 4, _short(row.label, 22), "text")
    for line in lines:
        x = scale.place(line)
        svg.line("threshold", x, top, x, bottom)
    shapes = dict(zip((row.label for row in kinds if not row.stolen), _SHAPES, strict=False))
    for row, y in zip(kinds, rows[bool(suspects) :], strict=True):
        for x, lift in _spread([scale.place(value) for value in row.values], 4.2):
            svg.shape(shapes.get(row.label, "circle"), "stolen" if row.stolen else "control", x, y + lift, 3.4)
    for label in labels:
        y = top - 4 - label.lane * _LANE
        svg.line("leader", label.x, y + 3, label.x, rows[0] - 6)
        beside = (label.x + 3, "start") if label.rightward else (label.x - 3, "end")
        svg.text(beside[0], y, label.text, "text", beside[1])
    for mark in sorted(suspects, key=lambda mark: mark.decision == "copy"):
        svg.shape(DECISION_SHAPES[mark.decision], mark.decision, scale.place(mark.value), rows[0], 4.6)
    svg.line("axis", _GUTTER, bottom, _STRIP - 26, bottom)
    for x, text in ticks:
        svg.line("axis", x, bottom, x, bottom + 4)
        svg.text(x, bottom + 15, text, "note", "middle")
    return bottom


def _spread(places: Sequence[float], gap: float) -> list[tuple[float, float]]:
    # Marks that would hide one another are lifted and lowered a little, in turn.
    lifts = (0.0, -4.0, 4.0, -8.0, 8.0)
    spread, last, turn = [], -math.inf, 0
    for x in sorted(places):
        turn = turn + 1 if x - last < gap else 0
        spread.append((x, lifts[turn % len(lifts)]))
        last = x
    return spread


@dataclass(frozen=True)
class _Label:
    # A text above a mark, in a lane counted from the marks; it stands to the right of its leader or to the left of it.
    x: float
    text: str
    lane: int
    rightward: bool


def _labels(marks: Sequence[tuple[float, Mark]]) -> list[_Label]:
    # Labels one above another where they would touch; where there are too many, each says how many marks are there.
    if len(marks) <= _MOST_LABELS:
        placed = _placed([(x, mark.label) for x, mark in marks])
        if max((label.lane for label in placed), default=0) < _MOST_LANES:
            return placed
    bins: dict[int, list[tuple[float, Mark]]] = {}
    for x, mark in marks:
        bins.setdefault(int(x / _BIN), []).append((x, mark))
    return _placed(
        [
            (min(x for x, _ in group), group[0][1].label if len(group) == 1 else f"{len(group)} \u00d7")
            for group in bins.values()
        ]
    )


def _placed(labels: Sequence[tuple[float, str]]) -> list[_Label]:
    # From the middle outwards, each in the lowest lane that is free: no label is then crossed by the leader of a higher
    # one. What a lane still has free on one side ends where its last label, or a leader through it, stands.
    middle = _GUTTER + 0.6 * (_STRIP - _GUTTER)
    placed: list[_Label] = []
    reached: list[float] = []  # by what stands to the right of its leader
    for rightward, sign in ((True, 1), (False, -1)):
        side = sorted(((x, text) for x, text in labels if (x <= middle) is rightward), reverse=rightward)
        free = [math.inf if rightward else -edge for edge in reached]
        for x, text in side:
            width = 8 + _CHARACTER * len(text)
            lane = next((at for at, edge in enumerate(free) if sign * x + width <= edge), len(free))
            free = [sign * x] * (lane + 1) + free[lane + 1 :]
            placed.append(_Label(x, text, lane, rightward))
            if rightward:
                reached += [-math.inf] * (lane + 1 - len(reached))
                reached = (
                    [max(edge, x) for edge in reached[:lane]] + [max(reached[lane], x + width)] + reached[lane + 1 :]
                )
    return placed


def _short(text: str, longest: int) -> str:
    shown = clean(text, 10 * longest)
    return shown if len(shown) <= longest else f"{shown[: longest // 2]}…{shown[-(longest - longest // 2 - 1) :]}"


_RADAR = 250.0


def radar(
    name: str,
    title: str,
    metrics: Sequence[str],
    values: Sequence[float | None],
    band: Sequence[tuple[float, float] | None],
    decision: str,
) -> str:
    """How alike a model is to the victim, by each metric; the rim is the victim itself, the dashed ring the threshold.

    Args:
        name: Of the figure; unique on the page.
        title: Whose.
        metrics: An axis each.
        values: Similarities, 0..1, of which :data:`AT_THRESHOLD` is that of the threshold; None if there is none.
        band: The least and the greatest similarity of the controls.
        decision: What was decided of the model.
    """
    shown = ", ".join(f"{m} {'not drawn' if v is None else f'{v:.2f}'}" for m, v in zip(metrics, values, strict=True))
    svg = _Svg(
        name,
        _RADAR,
        f"Similarity to the victim: {title}",
        f"From 0, far, over {AT_THRESHOLD:g}, the threshold, to 1, the victim: {shown}.",
    )
    middle, radius = _RADAR / 2, 78.0
    angles = [2 * math.pi * place / len(metrics) - math.pi / 2 for place in range(len(metrics))]

    def at(place: int, share: float) -> tuple[float, float]:
        return (
            middle + radius * share * math.cos(angles[place]),
            middle - 10 + radius * share * math.sin(angles[place]),
        )

    def rim(shares: Iterable[float]) -> list[tuple[float, float]]:
        return [at(place, share) for place, share in enumerate(shares)]

    drawn = [part for part in band if part]
    if len(drawn) == len(metrics):
        outer, inner = rim(high for _, high in drawn), rim(low for low, _ in drawn)
        path = "".join("M" + "L".join(f"{_plain(x)} {_plain(y)}" for x, y in part) + "Z" for part in (outer, inner))
        svg.add("path", "band", d=path, fill_rule="evenodd")
    svg.polygon("axis", rim([1.0] * len(metrics)))
    for place, metric in enumerate(metrics):
        svg.line("grid", *at(place, 0), *at(place, 1))
        x, y = at(place, 1.13)
        side = math.cos(angles[place])
        anchor = "middle" if abs(side) < 0.3 else "start" if side > 0 else "end"
        svg.text(x, y + 4, _short(metric, 10), "text", anchor)
    svg.polygon("threshold", rim([AT_THRESHOLD] * len(metrics)))
    if len(drawn) != len(metrics):
        for place, part in enumerate(band):
            if part:
                low, high = at(place, part[0]), at(place, part[1])
                svg.line("control", *low, *high)
    points = [None if value is None else at(place, value) for place, value in enumerate(values)]
    for one, other in zip(points, [*points[1:], *points[:1]], strict=True):
        if one and other:
            svg.line(f"{decision}-line", *one, *other)
    for point in filter(None, points):
        svg.shape(DECISION_SHAPES[decision], decision, *point, 3.6)
    return svg.done(_RADAR - 18)


_ROC, _PLOT, _SAMPLE = 380.0, 160.0, 22.0
_DASHES = ("part", "part-dashed", "part-dotted", "part-mixed")
NAMED_CURVES = 8
"""More thin curves than these have no names, and are not drawn."""


@dataclass(frozen=True)
class Curve:
    """A ROC curve, from none to all: shares of controls and of stolen models at or below each threshold."""

    false: Sequence[float]
    true: Sequence[float]

    @property
    def area(self) -> float:
        """The area under it, 0..1, by trapezoids: ties of a stolen model and a control count half."""
        return float(np.trapezoid(self.true, self.false))


def roc_curve(stolen: Sequence[float], controls: Sequence[float]) -> Curve:
    """The curve of a distance, of which copies have less."""
    limits = np.unique([*stolen, *controls])
    false, true = (
        np.searchsorted(np.sort(values), limits, side="right") / len(values) for values in (controls, stolen)
    )
    return Curve([0.0, *map(float, false)], [0.0, *map(float, true)])


def roc(name: str, metric: str, whole: Curve, parts: Mapping[str, Curve]) -> str:
    """ROC curves of a metric, with their names: a thick one of all stolen models, a thin one of each attack.

    Args:
        name: Of the figure; unique on the page.
        metric: What was measured.
        whole: The curve of all.
        parts: That of each attack, at most :data:`NAMED_CURVES`.
    """
    accused = "Stolen models noticed against controls accused"
    description = f"{accused}, by {metric}, at every threshold; the area is {whole.area:.3f}."
    svg = _Svg(name, _ROC, f"ROC of {metric}, AUC {whole.area:.3f}", description)
    left, top = 44.0, 8.0

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * _PLOT, top + (1 - y) * _PLOT

    for share in (0.0, 0.5, 1.0):
        svg.line("grid", *at(share, 0), *at(share, 1))
        svg.line("grid", *at(0, share), *at(1, share))
        svg.text(at(share, 0)[0], top + _PLOT + 14, f"{share:g}", "note", "middle")
        svg.text(left - 6, at(0, share)[1] + 4, f"{share:g}", "note", "end")
    svg.line("chance", *at(0, 0), *at(1, 1))
    drawn = [(attack, curve, _DASHES[place % len(_DASHES)]) for place, (attack, curve) in enumerate(parts.items())]
    drawn.append(("all attacks", whole, "whole"))
    for _, curve, paint in drawn:
        points = [at(x, y) for x, y in zip(curve.false, curve.true, strict=True)]
        svg.add("polyline", paint, points=" ".join(f"{_plain(x)},{_plain(y)}" for x, y in points))
    beside = left + _PLOT + 16
    for place, (attack, curve, paint) in enumerate(reversed(drawn)):
        y = top + 10 + 16 * place
        svg.line(paint, beside, y, beside + _SAMPLE, y)
        svg.text(beside + _SAMPLE + 6, y + 4, f"{_short(attack, 15)} {curve.area:.2f}", "text")
    y = top + 10 + 16 * len(drawn)
    svg.line("chance", beside, y, beside + _SAMPLE, y)
    svg.text(beside + _SAMPLE + 6, y + 4, "chance 0.50")
    svg.text(left + _PLOT / 2, top + _PLOT + 28, "share of controls accused", "note", "middle")
    label = svg.add(
        "text", "note", x=12, y=top + _PLOT / 2, text_anchor="middle", transform=f"rotate(-90 12 {top + _PLOT / 2:g})"
    )
    label.text = "share of stolen models noticed"
    return svg.done(top + _PLOT + 34)
