"""Makes the suites of a network, lets all its models answer them, and tells how far copies are from independents."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from networks import Data, Network

from deepjudge_core import (
    Answers,
    Calibration,
    Decision,
    Measurement,
    Observation,
    QuerySettings,
    Suite,
    build_suite,
    judge,
    load_observation,
    load_registry,
    load_suite,
    observe,
    open_model,
    save_observation,
    save_suite,
    select_seeds,
)
from deepjudge_core.judging.neurons import Match, match_observation

KINDS = ("copy", "disguised", "independent")
METRICS = ("nod", "nad", "lod", "lad")
FACTORS = (2.0, 3.0)  # the values of neuron-corners' option m
TRAINING_ROWS = 4096  # over which the ranges of neurons are taken
SPLITS = 200  # random halves of the independents
ROWS_AT_ONCE = 64  # the fastest on a CPU
REGISTRY = load_registry()

Values = Mapping[str, Mapping[str, float]]  # of each model, of each metric


@dataclass(frozen=True)
class Measured:
    """What one choice of taps gave.

    Attributes:
        neurons: Number of neurons at these taps.
        reached: Number of those that have cases.
        seconds: That making the cases took.
        values: Of each model but the victim, of each metric; of no metric where no neuron was reached.
    """

    neurons: int
    reached: int
    seconds: float
    values: Values


@dataclass(frozen=True)
class Separation:
    """How far apart copies and independents are.

    Attributes:
        margins: Of each metric, the least distance of an independent over the greatest of a copy.
        accused: Of copies, disguised copies and independents, the share called copies, over random halves of the
            independents as controls; the other half is judged.
        undecided: The share of all these for which there is no verdict.
    """

    margins: Mapping[str, float]
    accused: Mapping[str, float]
    undecided: float


def measured(network: Network, data: Data, folder: Path, factor: float, match: Match) -> dict[str, Measured]:
    """Each hidden tap by itself, by its number counted from 0, then all together."""
    suites = [load_suite(path) for path in _suites(network, data, folder, factor)]
    models = sorted(path.stem for path in folder.glob("*.pt2") if path.stem != "victim")
    seconds = json.loads((folder / "seconds.json").read_text())
    observations = {name: _observations(folder, name, suites, factor) for name in models}
    choices = {str(place): [place] for place in range(len(suites))}
    if len(suites) > 1:
        choices["all"] = list(range(len(suites)))
    by_choice = {}
    for name, places in choices.items():
        chosen = [suites[place] for place in places]
        total = sum(suite.victim.model.layers[suite.layers[0]] for suite in chosen)
        by_choice[name] = Measured(
            neurons=total,
            reached=total - sum(len(suite.unreached) for suite in chosen),
            seconds=sum(seconds[_name(place, factor)] for place in places),
            values={
                model: _distances(chosen, [observations[model][place] for place in places], match) for model in models
            },
        )
    return by_choice


def separation(values: Values) -> Separation:
    """Compare the distances of copies with those of independents; the halves are the same for all choices of taps."""
    kinds = {kind: [name for name in values if name.startswith(kind)] for kind in KINDS}
    margins = {}
    for metric in METRICS:
        near, far = (np.array([values[name][metric] for name in kinds[kind]]) for kind in ("copy", "independent"))
        margins[metric] = float(far.min() / near.max()) if near.max() > 0 else float("inf")
    rng = np.random.default_rng(0)
    measurements = {
        name: {metric: Measurement(REGISTRY.metrics[metric], value) for metric, value in distances.items()}
        for name, distances in values.items()
    }
    decisions: dict[str, list[Decision]] = {kind: [] for kind in KINDS}
    for _ in range(SPLITS):
        order = rng.permutation(kinds["independent"])
        controls, held_out = order[: len(order) // 2], order[len(order) // 2 :]
        calibration = Calibration("", (), tuple(measurements[name] for name in controls))
        for kind, names in (kinds | {"independent": held_out}).items():
            decisions[kind] += [judge(measurements[name], calibration, registry=REGISTRY).decision for name in names]
    return Separation(
        margins,
        accused={kind: float(np.mean([d is Decision.COPY for d in outcomes])) for kind, outcomes in decisions.items()},
        undecided=float(np.mean([d is Decision.INCONCLUSIVE for outcomes in decisions.values() for d in outcomes])),
    )


def _suites(network: Network, data: Data, folder: Path, factor: float) -> Iterator[Path]:
    # The suites of all hidden taps, made where they are not there yet.
    (folder / "suites").mkdir(exist_ok=True)
    record = folder / "seconds.json"
    seconds = json.loads(record.read_text()) if record.is_file() else {}
    victim = open_model(folder / "victim.pt2", batch_size=ROWS_AT_ONCE)
    seeds = None
    for place, tap in enumerate(list(victim.layers)[:-1]):
        name = _name(place, factor)
        path = folder / "suites" / f"{name}.safetensors"
        if not path.is_file():
            seeds = seeds or select_seeds(victim, data.x_test.numpy(), data.y_test.numpy(), n=network.seeds)
            start = time.perf_counter()
            suite = build_suite(
                victim,
                seeds,
                ["neuron-corners"],
                training_inputs=data.x_train[network.own][:TRAINING_ROWS].numpy(),
                layers=[tap],
                options={"neuron-corners": {"m": factor, **network.corners}},
            )
            seconds[name] = time.perf_counter() - start
            save_suite(path, suite)
            record.write_text(json.dumps(seconds))
            print(f"{folder.name}/{name}: {len(suite.unreached)} unreached, {seconds[name]:.0f} s", flush=True)
        yield path


def _observations(folder: Path, model: str, suites: Sequence[Suite], factor: float) -> list[Observation]:
    paths = [folder / "observations" / _name(place, factor) / f"{model}.safetensors" for place in range(len(suites))]
    if not all(path.is_file() for path in paths):
        opened = open_model(folder / f"{model}.pt2", batch_size=ROWS_AT_ONCE)
        for path, suite in zip(paths, suites, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            own = QuerySettings(layers={layer: layer for layer in suite.layers})  # all have the same taps
            save_observation(path, observe(opened, suite, own))
    return [load_observation(path) for path in paths]


def _name(place: int, factor: float) -> str:
    return f"tap-{place:02}-m{factor:g}"


def _distances(suites: Sequence[Suite], observations: Sequence[Observation], match: Match) -> dict[str, float]:
    # Suites of one tap each are taken together as one of several taps would be: each tap with the cases made for it.
    if not any(suite.rows("corners").any() for suite in suites):
        return {}
    victim = _together([suite.answers(suite.victim, "corners") for suite in suites])
    pairs = zip(suites, observations, strict=True)
    suspect = _together([suite.answers(match_observation(suite, one, match), "corners") for suite, one in pairs])
    return {name: REGISTRY.metrics[name].distance(victim, suspect) for name in METRICS}


def _together(answers: Sequence[Answers]) -> Answers:
    activations, made_for = {}, {}
    for one in answers:
        activations |= one.activations
        made_for |= one.made_for
    return Answers(answers[0].labels, None, activations, made_for)
