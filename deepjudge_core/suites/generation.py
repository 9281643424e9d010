"""Make a suite: run the generators on the victim, keep the cases that serve, let the victim answer them."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from msgspec import UNSET

from deepjudge_core.components.kinds import Generator
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.components.values import Cases, Seeds, Task
from deepjudge_core.errors import (
    DeepJudgeError,
    GenerationError,
    InputError,
    ModelError,
    PluginError,
    UsageError,
    one_line,
)
from deepjudge_core.models.asking import ask, ask_again
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.layouts import arrangement
from deepjudge_core.models.model import Access, Classifier, Model, complete
from deepjudge_core.models.prepared import Prepared
from deepjudge_core.naming import option
from deepjudge_core.suites.choice import GeneratorChoice
from deepjudge_core.suites.inputs import as_inputs, check_bounds
from deepjudge_core.suites.labels import is_clear
from deepjudge_core.suites.moments import Moments
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.ranges import by_feature, hull, is_one
from deepjudge_core.suites.realising import Realising
from deepjudge_core.suites.settings import ANSWERING_GENERATORS, SuiteSettings
from deepjudge_core.suites.suite import CASE_SETS, CaseTable, GeneratorRecord, Suite
from deepjudge_core.types import Array, Layout

_SEEDS_PER_CASE = 10  # at most; where fewer seeds become cases that the victim misclassifies, they say too little
_LEAST_MISTAKES = 10  # with fewer, one of them moves a share over them by more than 0.1
_SATURATED, _NEARLY_ALL = 0.999, 0.95  # a probability that is said of every case; share of the adversarial cases
_INDEPENDENT = (
    "each class has a probability of its own: a case's label is the likeliest class, if it "
    "is clearly so, and jsd is the mean over the classes"
)
_LEAST_RANGE = 0.1  # of the seeds' range that training inputs have


def build_suite(
    victim: Classifier,
    seeds: Seeds,
    generators: Sequence[str] | None = None,
    *,
    training_inputs: Array | None = None,
    layout: Layout | None = None,
    layers: Sequence[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    force: bool = False,
    pictures: str | None = None,
    registry: Registry | None = None,
) -> Suite:
    """Make test cases from the victim and let it answer them.

    Args:
        victim: The owner's model; behind its preprocessing (:class:`~deepjudge_core.models.prepared.Prepared`), if the
            seeds are not as it takes them.
        seeds: From :func:`~deepjudge_core.suites.seeds.select_seeds`.
        generators: Names of generators; by default the usual ones, and of a victim without gradients one that needs
            its answers alone.
        training_inputs: ``(m, *shape)`` inputs over which neuron ranges are taken (paper, Alg. 2); by default the
            seeds, which is noted in the suite.
        layout: Where the channels of the training inputs are, where that is known.
        layers: Taps of the victim to compare; by default :func:`default_layers`.
        options: Generator name to its options.
        seed: Of all randomness.
        force: Whether to go on, with a note, where a generator makes too few cases.
        pictures: "png" or "jpeg:QUALITY" to keep only cases that survive as such pictures.
        registry: Where the generators are; by default every installed one.

    Raises:
        GenerationError: When a generator makes too few cases.
        ModelError: When the victim cannot be run, or does not give what a generator or the layers need.
        PluginError: When a generator fails.
        UsageError: For an unknown generator, option or layer.
    """
    settings = SuiteSettings(layers=layers, generators=generators, options=options or {}, seed=seed, force=force)
    return generate_suite(
        complete(victim),
        seeds,
        GeneratorChoice.of(settings, (registry or load_registry()).generators),
        training_inputs=training_inputs,
        layout=layout,
        layers=settings.layers,
        seed=settings.seed,
        force=settings.force,
        pictures=pictures,
    )


def generate_suite(
    victim: Model,
    seeds: Seeds,
    choice: GeneratorChoice,
    *,
    training_inputs: Array | None = None,
    layout: Layout | None = None,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    force: bool = False,
    pictures: str | None = None,
) -> Suite:
    """Make test cases from the victim and let it answer them: :func:`build_suite` by generators looked up before.

    With ``pictures`` only such cases are kept as an interface of pictures takes unchanged: see
    :mod:`~deepjudge_core.suites.realising`.
    """
    realising = None if pictures is None else Realising.of(pictures, victim, seeds)
    if seed < 0:
        raise UsageError(f"expected a seed of at least 0, found {seed}", code="wrong-value")
    taps = tuple(dict.fromkeys(layers)) if layers else default_layers(victim)
    if taps and Access.LAYERS not in victim.access:
        setting = option("SuiteSettings.layers", python="layers=")
        raise ModelError(
            f"{victim.name}: expected layers to compare, found a model without any; leave {setting} out, and only its "
            "answers are compared"
        )
    for tap in taps:
        if tap not in victim.layers:
            raise UsageError(
                f"{victim.name}: no layer {tap!r}; its layers are {', '.join(victim.layers)}",
                code="unknown-name",
            )
    generators, choice_notes = choice.for_victim(victim, seeds)
    notes = [*victim.notes, *seeds.notes, *([_INDEPENDENT] if victim.independent else []), *choice_notes]
    if training_inputs is None:
        training_inputs = seeds.inputs
        if any(generator.component.makes == "corners" for generator in generators):
            notes.append("neuron ranges were measured on the seeds, because no training inputs were given")
    else:
        training_inputs = _check_training(victim, as_inputs("training inputs", training_inputs), seeds, layout)
    if realising:
        seeds, note = realising.of_seeds(victim, seeds)
        notes.append(note)
    parts = [_clean(seeds)]
    records = []
    unreached: list[tuple[int, int]] = []
    for place, configured in enumerate(generators):
        generator, options = configured.component, configured.options
        task = Task(victim, seeds, taps, training_inputs, _rng(seed, generator))
        cases, keep, few, grid_notes = _on_grid(generator, task, options)
        if few and seeds.grid is not None:
            # Steps may be too coarse for any change that is as small as was asked for.
            free = replace(task, seeds=replace(seeds, grid=None), rng=_rng(seed, generator))
            others, kept, scarce, _ = _on_grid(generator, free, options)
            if not scarce:
                grid_notes = (_between(few),)
                cases, keep, few = others, kept, None
        if realising:
            cases, stays, note = realising.of_cases(task, cases, keep, generator)
            keep = stays & _keep(generator, task, cases)
            notes.append(f"{generator.name}: {note.format(int(keep.sum()))}")
            few = _too_few(generator, task, keep, options)
        if few and not force:
            raise GenerationError(f"{few}; {option('force', True)} makes the suite anyway")
        notes += [f"made although {few}"] if few else []
        if generator.makes == "corners":
            unreached += [(int(layer), int(neuron)) for layer, neuron in cases.unreached]
        parts.append(_rows(cases, keep, seeds, generator, place))
        notes += [
            f"{generator.name}: {note}" for note in (*grid_notes, *_without_case(generator, task, cases), *cases.notes)
        ]
        records.append(
            GeneratorRecord(
                name=generator.name,
                makes=generator.makes,
                provider=configured.provider,
                options={**options, **cases.options},
                made=len(keep),
                kept=int(keep.sum()),
                details=cases.details or UNSET,
            )
        )
    if any(generator.component.makes == "corners" for generator in generators):
        notes += _thin(victim, taps, unreached)
    table = CaseTable(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})
    answers = _own_answers(victim, table, taps, seeds.layout)
    notes += _saturated(answers, table)
    return Suite(
        seed=int(seed),
        bounds=hull(seeds.bounds),
        accuracy=seeds.accuracy,
        layers=taps,
        seed_indices=np.asarray(seeds.indices, dtype=np.int64),
        cases=table,
        unreached=tuple(unreached),
        generators=tuple(records),
        victim=answers,
        notes=tuple(notes),
        feature_bounds=by_feature(seeds.bounds),
        moments=Moments.of(training_inputs, hull(seeds.bounds), victim.input.layout or seeds.layout),
        probes=seeds.probes,
        label_origin=seeds.label_origin,
        grid=seeds.grid,
    )


def _check_training(victim: Model, training_inputs: Array, seeds: Seeds, layout: Layout | None) -> Array:
    # Inputs on another scale than the seeds would give limits that no neuron reaches, or that all do.
    spec = victim.input.with_layout(seeds.layout)
    arranged = arrangement(victim.name, training_inputs.shape[1:], spec, layout)(training_inputs)
    check_bounds("training inputs", arranged, seeds.bounds)
    span, expected = np.ptp(training_inputs), np.ptp(seeds.inputs)
    if span < expected * _LEAST_RANGE:
        raise InputError(
            f"training inputs: expected a range like that of the seeds, {expected:g}, found {span:g}; "
            "were they scaled twice?"
        )
    return arranged


def default_layers(victim: Model) -> tuple[str, ...]:
    """The taps that ``--layers auto`` compares: the hidden one a third of the way, none without layers.

    Deeper ones change more when a copy is trained on; the first have few neurons (docs/why/evidence.md).
    """
    if Access.LAYERS not in victim.access:
        return ()
    hidden = list(victim.layers)[:-1] or list(victim.layers)
    return (hidden[round(len(hidden) / 3)],)


def _rng(seed: int, generator: Generator) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(generator.name.encode())])


def _on_grid(
    generator: Generator, task: Task, options: Mapping[str, Any]
) -> tuple[Cases, Array, str | None, tuple[str, ...]]:
    # Cases in the steps in which data comes, those of them that are kept, why they are too few, and what to say of it.
    cases = _generate(generator, task, options)
    keep, made, notes = _keep(generator, task, cases), cases.inputs, tuple[str, ...]()
    if task.seeds.grid is not None and generator.makes != "mistakes" and len(made):
        cases = replace(cases, inputs=task.seeds.on_grid(made))
        if not np.array_equal(cases.inputs, made):
            before, keep = int(keep.sum()), _keep(generator, task, cases)
            lost = before - int(keep.sum())
            notes = (f"rounded to the steps of the inputs, {lost} of {before} cases are lost",) if lost > 0 else ()
    return cases, keep, _too_few(generator, task, keep, options), notes


def _between(few: str) -> str:
    return (
        "its cases lie between the steps in which the inputs come, where a model can tell them from data and answer "
        f"them otherwise; in these steps, {few}"
    )


def _generate(generator: Generator, task: Task, options: Mapping[str, Any]) -> Cases:
    missing = generator.needs & ~task.victim.access
    try:
        if Access.GRADIENTS in missing:
            # The adapter knows best why there are none: asking for one says it.
            try:
                task.victim.gradient(task.seeds.inputs[:1], lambda scores, rows: np.zeros_like(scores))
            except ModelError as error:
                if error.code not in (ModelError.code, "cannot-answer"):
                    raise
                way_out = " or ".join(ANSWERING_GENERATORS)
                raise ModelError(
                    f"{error}; {way_out} can make cases from its answers alone ({option('generators')})"
                ) from error
        if missing:
            raise ModelError(
                f"{task.victim.name}: does not provide {_text(missing)}, which "
                f"{generator.name} needs; choose others with {option('generators')}"
            )
        cases = generator.generate(task, **options)
        _check(cases, generator, task)
        _check_words(cases, generator, options)
    except DeepJudgeError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"the generator {generator.name!r} failed: {one_line(error)}") from error
    return cases


def _check(cases: object, generator: Generator, task: Task) -> None:
    failed = f"the generator {generator.name!r} failed:"
    if not isinstance(cases, Cases):
        raise PluginError(f"{failed} expected Cases, found {type(cases).__name__}")
    inputs, shape, (low, high) = cases.inputs, task.seeds.inputs.shape[1:], task.seeds.bounds
    least, greatest = hull(task.seeds.bounds)
    if inputs.shape[1:] != shape or inputs.dtype != np.float32:
        raise PluginError(f"{failed} expected float32 inputs of shape {shape}, found {inputs.dtype} {inputs.shape[1:]}")
    if not ((low <= inputs) & (inputs <= high)).all():
        each = "" if is_one(task.seeds.bounds) else ", with each feature in its own range"
        raise PluginError(
            f"{failed} expected inputs within {least:g}..{greatest:g}{each}, found {inputs.min():g}..{inputs.max():g}"
        )
    for column in ("seeds", "layers", "neurons"):
        if np.asarray(getattr(cases, column)).shape != inputs.shape[:1]:
            raise PluginError(f"{failed} expected one number per case in {column!r}")
    if generator.makes == "mistakes":
        if (np.asarray(cases.seeds) != -1).any():
            raise PluginError(f"{failed} expected mistakes to have the seed -1")
        if not _are_labels(cases.labels, len(inputs), task.victim.classes):
            raise PluginError(f"{failed} expected a label in 0..{task.victim.classes - 1} for each mistake")
    else:
        if not all(0 <= seed < len(task.seeds.inputs) for seed in cases.seeds):
            raise PluginError(f"{failed} expected seeds in 0..{len(task.seeds.inputs) - 1}")
        if cases.labels is not None:
            raise PluginError(f"{failed} expected only the labels of the seeds")
    none = [(-1, -1)] if generator.makes != "corners" else []
    widths = enumerate(task.victim.layers[layer] for layer in task.layers)
    places = {*none, *((place, neuron) for place, width in widths for neuron in range(width))}
    for place in (*zip(cases.layers, cases.neurons, strict=True), *cases.unreached):
        if tuple(place) not in places:
            raise PluginError(f"{failed} expected a neuron of a layer, found neuron {place[1]} of layer {place[0]}")


def _check_words(cases: Cases, generator: Generator, options: Mapping[str, Any]) -> None:
    failed = f"the generator {generator.name!r} failed:"
    if not set(cases.options) <= set(options):
        raise PluginError(f"{failed} expected chosen options to be among {', '.join(options) or 'none'}, found others")
    words = [dict(cases.options), dict(cases.details), list(cases.notes)]
    try:
        plain = json.loads(json.dumps(words, allow_nan=False))
    except (TypeError, ValueError):
        plain = None
    if plain != words or not all(isinstance(note, str) for note in cases.notes):
        raise PluginError(f"{failed} expected options and details that fit in JSON, and notes that are strings")


def _are_labels(labels: Array | None, n: int, classes: int) -> bool:
    if not isinstance(labels, np.ndarray) or labels.shape != (n,) or labels.dtype.kind != "i":
        return False
    return all(0 <= label < classes for label in labels)


def _labels(cases: Cases, seeds: Seeds) -> Array:
    return seeds.labels[cases.seeds] if cases.labels is None else cases.labels


def _keep(generator: Generator, task: Task, cases: Cases) -> Array:
    # Adversarial cases are those that the victim misclassifies (paper, section IV-C1), and so are its mistakes.
    if generator.makes == "corners" or len(cases.inputs) == 0:
        return np.ones(len(cases.inputs), dtype=bool)
    answers, _ = ask(task.victim, cases.inputs, {})
    keep: Array = answers.argmax(axis=1) != _labels(cases, task.seeds)
    if task.victim.independent:
        keep &= is_clear(answers)
    return keep


def _too_few(generator: Generator, task: Task, keep: Array, options: Mapping[str, Any]) -> str | None:
    # Why nothing could be measured on the cases of a generator.
    count, least = int(keep.sum()), -(-len(task.seeds.inputs) // _SEEDS_PER_CASE)
    if generator.makes == "mistakes" and count < _LEAST_MISTAKES:
        return (
            f"{generator.name}: {task.victim.name} misclassifies {count} of the inputs offered as "
            f"seeds, expected at least {_LEAST_MISTAKES}; offer more labelled inputs that it was not "
            "trained on"
        )
    if generator.makes == "adversarial" and count < least:
        return (
            f"{generator.name}: {task.victim.name} misclassifies {count} of {len(keep)} cases, "
            f"expected at least {least}; allow larger changes through its options: "
            f"{', '.join(options) or 'none'}"
        )
    if generator.makes == "corners" and count == 0:
        return (
            f"{generator.name}: no neuron of {', '.join(task.layers) or 'no layer'} has a case, "
            f"expected at least one; demand less through its options: {', '.join(options) or 'none'}"
        )
    return None


def _without_case(generator: Generator, task: Task, cases: Cases) -> list[str]:
    # A generator may pass over seeds; the number of cases alone does not show it.
    left = len(task.seeds.inputs) - len(np.unique(cases.seeds))
    if generator.makes != "adversarial" or not left:
        return []
    return [f"made no case of {left} of the {len(task.seeds.inputs)} seeds"]


def _thin(victim: Model, taps: Sequence[str], unreached: Sequence[tuple[int, int]]) -> list[str]:
    # Layers that white-box metrics know little of.
    counts = {tap: sum(place == at for at, _ in unreached) for place, tap in enumerate(taps)}
    widths = {tap: victim.layers[tap] for tap in taps}
    return [
        f"only {widths[tap] - count} of {widths[tap]} neurons of {tap!r} have cases"
        for tap, count in counts.items()
        if 2 * count > widths[tap]
    ]


def _saturated(victim: Observation, cases: CaseTable) -> list[str]:
    # Cases to which every model may say the same.
    rows = cases.sets == CASE_SETS.index("adversarial")
    if victim.probabilities is None or not rows.any():
        return []
    answers = victim.probabilities[rows]
    share = max(np.bincount(answers.argmax(axis=1)[answers.max(axis=1) >= _SATURATED], minlength=1)) / len(answers)
    if share < _NEARLY_ALL:
        return []
    return [
        (
            f"the victim is certain of one class for {share:.0%} of the adversarial cases; if honest "
            "models are certain too, these cases show nothing. Should each feature have its own "
            f"range ({option('bounds')})?"
        )
    ]


def _clean(seeds: Seeds) -> CaseTable:
    none = np.full(len(seeds.inputs), -1, dtype=np.int64)
    places = np.arange(len(seeds.inputs), dtype=np.int64)
    clean = np.full(len(places), CASE_SETS.index("clean"), dtype=np.int64)
    return CaseTable(
        inputs=seeds.inputs,
        labels=seeds.labels,
        sets=clean,
        generators=none,
        seeds=places,
        layers=none,
        neurons=none,
    )


def _rows(cases: Cases, keep: Array, seeds: Seeds, generator: Generator, place: int) -> CaseTable:
    columns = (cases.seeds, cases.layers, cases.neurons)
    origin, layers, neurons = (np.asarray(column, dtype=np.int64)[keep] for column in columns)
    sets = np.full(len(origin), CASE_SETS.index(generator.makes), dtype=np.int64)
    by = np.full(len(origin), place, dtype=np.int64)
    return CaseTable(
        inputs=cases.inputs[keep],
        labels=np.asarray(_labels(cases, seeds), dtype=np.int64)[keep],
        sets=sets,
        generators=by,
        seeds=origin,
        layers=layers,
        neurons=neurons,
    )


def _own_answers(victim: Model, cases: CaseTable, taps: Sequence[str], layout: Layout | None) -> Observation:
    layer_map = {tap: tap for tap in taps}
    probabilities, activations = ask(victim, cases.inputs, layer_map, sets=cases.sets)
    unsteady = ask_again(victim, cases.inputs, cases.sets, probabilities, activations)
    if unsteady:  # every distance would be one to answers that it gave by chance
        raise ModelError(f"{victim.name}: {unsteady}; expected a victim that gives the same answers each time")
    preprocessing = victim.preprocessing if isinstance(victim, Prepared) else None
    return Observation(
        ModelInfo.of(victim, layout),
        "",
        probabilities,
        activations,
        layer_map,
        preprocessing=preprocessing,
        independent=bool(victim.independent),
    )


def _text(access: Access) -> str:
    return " and ".join(flag.name.lower() for flag in Access if flag in access and flag.name)
