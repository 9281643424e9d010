"""The tables of a study in Markdown, from its ``power.json`` and ``zoo.json``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from studies import FAMILIES, METRICS, Study

from deepjudge_core.auditing.power import area

Report = Mapping[str, Any]
STRATA = {"same-data": "Neg-1: same rows", "other-data": "Neg-2: other rows"}


def section(study: Study, key: str, power: Report, zoo: Report, commands: Sequence[str], figures: str) -> Iterator[str]:
    """All of one study's section of the page."""
    models, victim = [model for model in power["models"] if model["counts"]], power["victim"]
    yield f"## {study.title}"
    yield f"{study.about} It classifies {victim['accuracy']:.1%} of the test rows correctly."
    yield "```console\n" + "\n".join(f"$ {line}" for line in commands) + "\n```"
    seconds = sum(model["seconds"] for model in zoo["models"])
    yield (
        f"{len(zoo['models'])} models, made in {seconds / 60:.0f} minutes. Mean and standard deviation of the distance "
        "from the victim; below them the thresholds."
    )
    yield _table(_values(power, models))
    yield "Shares of models that are judged copies, and areas under the ROC curves against the controls."
    yield _table(_verdicts(power))
    held = power["controls"]["held_out_accused"]
    low, high = held["interval"]
    yield (
        f"Of {held['of']} controls, each held out once, {held['count']} would be accused by the others: with 95 % "
        f"confidence {low:.1%} to {high:.1%} of such models."
    )
    left = [
        f"{model['file']} ({model['accuracy']:.1%}, {model['decision']})"
        for model in power["models"]
        if not model["counts"]
    ]
    if left:
        yield f"Not counted, since their accuracy is far below the victim's: {', '.join(left)}."
    missing = [f"{entry['name']} ({entry['reason']})" for entry in zoo["missing"]]
    if missing:
        yield f"Could not be made: {', '.join(missing)}."
    yield f"![ROC curves of each metric]({figures}/{key}-roc.svg)"
    yield f"![Nearness to the victim, by metric]({figures}/{key}-radar.svg)"
    yield _table(_areas(models))
    yield _overlaps(models)


def _values(power: Report, models: Sequence[Report]) -> Iterator[list[str]]:
    yield ["models", "number", "accuracy", *METRICS]
    for name, members in _rows(models):
        accuracies = [model["accuracy"] for model in members if model["accuracy"] is not None]
        accuracy = f"{np.mean(accuracies):.1%}" if accuracies else "-"
        yield [name, str(len(members)), accuracy, *(_spread(members, metric) for metric in METRICS)]
    stolen = next(model for model in models if model["kind"] == "stolen" and model["metrics"])
    thresholds = [stolen["metrics"].get(metric, {}).get("threshold") for metric in METRICS]
    yield ["threshold", "", "", *("-" if t is None else f"{t:.3g}" for t in thresholds)]


def _verdicts(power: Report) -> Iterator[list[str]]:
    yield ["attack", "copies", "black-box", "white-box", *(f"AUC {metric}" for metric in METRICS)]
    for attack in power["attacks"]:
        shares = (attack["copies"], attack["groups"]["black-box"], attack["groups"]["white-box"])
        areas = (attack["auc"].get(metric) for metric in METRICS)
        yield [
            f"`{attack['attack']}`",
            *(f"{share['count']} of {share['of']}" for share in shares),
            *("-" if area is None else f"{area:.2f}" for area in areas),
        ]


def _areas(models: Sequence[Report]) -> Iterator[list[str]]:
    yield ["AUC, against all controls", *METRICS]
    controls = [model for model in models if model["kind"] == "control"]
    for family, attacks in FAMILIES.items():
        stolen = [model for model in models if model["attack"] in attacks]
        if stolen:
            areas = (area(measured(stolen, metric), measured(controls, metric)) for metric in METRICS)
            yield [family, *("-" if area is None else f"{area:.3f}" for area in areas)]


def _overlaps(models: Sequence[Report]) -> str:
    # Which metrics do not separate the paper's positives from its negatives, and by which models.
    controls = [model for model in models if model["kind"] == "control"]
    positives = [model for model in models if model["attack"] in FAMILIES["fine-tuned and pruned"]]
    lines = []
    for metric in METRICS:
        if not len(measured(controls, metric)):
            continue
        nearest = measured(controls, metric).min()
        beyond = [
            f"{model['file'].rpartition('/')[2].rpartition('.')[0]} ({value:.3g})"
            for model in positives
            if (value := _value(model, metric)) is not None and value >= nearest
        ]
        if beyond:
            models_beyond = ", ".join(beyond)
            lines.append(f"- `{metric}`: the nearest control is at {nearest:.3g}, and {models_beyond} not below it.")
    if not lines:
        return "Each metric separates all fine-tuned and pruned models from all controls (AUC 1, as in the paper)."
    return "Where a metric does not separate fine-tuned and pruned models from the controls:\n\n" + "\n".join(lines)


def _rows(models: Sequence[Report]) -> Iterator[tuple[str, list[Report]]]:
    attacks = dict.fromkeys(model["attack"] for model in models if model["attack"])
    for attack in attacks:
        yield f"`{attack}`", [model for model in models if model["attack"] == attack]
    for stratum, name in STRATA.items():
        members = [model for model in models if model["stratum"] == stratum]
        if members:
            yield name, members


def _spread(members: Sequence[Report], metric: str) -> str:
    values = measured(members, metric)
    if not len(values):
        return "-"
    deviation = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
    return f"{values.mean():.3g}{deviation}"


def measured(members: Iterable[Report], metric: str) -> np.ndarray:
    """A metric's values over the models that it could be measured on."""
    return np.array([value for member in members if (value := _value(member, metric)) is not None])


def _value(model: Report, metric: str) -> float | None:
    value: float | None = model["metrics"].get(metric, {}).get("value")
    return value


def _table(rows: Iterable[Sequence[str]]) -> str:
    first, *others = rows
    aligned = ["---", *["---:"] * (len(first) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (first, aligned, *others))
