"""Run a model on a suite, once; the only place where a suspect is run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepjudge_core.errors import InputError, ModelError, UsageError
from deepjudge_core.models.asking import SameAnswerError, ask, ask_again
from deepjudge_core.models.cka import linear_cka
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.layouts import arrangement
from deepjudge_core.models.model import Access, Classifier, Model, complete
from deepjudge_core.models.preprocessing import Prepare, Preprocessing, candidates
from deepjudge_core.observing.classes import ClassMapping, listed, map_classes
from deepjudge_core.observing.layers import Candidates, NoLayerError, align, find_candidates
from deepjudge_core.observing.outputs import choose_output, only_output, other_classes
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.suites.observation import Guess, Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array

_PROBES = 200  # seeds at most, on which a preprocessing is tried
# Shares of the way from chance to the victim, which classifies all of its seeds correctly. Below a quarter a model has
# not learnt the task, or is not asked as it expects; a model of the task gets most of what the victim is surest of.
_POOR, _GOOD = 0.25, 0.75
_MOST_CHANCE = 0.8  # where more of the seeds are of one class, accuracy says too little


def observe(model: Classifier, suite: Suite, asking: QuerySettings | None = None) -> Observation:
    """Let a model answer all cases of a suite.

    Args:
        model: Anybody's model.
        suite: The suite.
        asking: How, where the model does not tell.

    Raises:
        ModelError: When the model takes other inputs, cannot be run, or answers nonsense.
        UsageError: When ``asking`` names what does not exist.
    """
    model, asking = complete(model), asking or QuerySettings()
    model, output_notes = _choose_output(model, suite, asking)
    arrange = _arrangement(model, suite, asking)
    chosen, unmatched = _candidates(model, suite, asking.layers)
    questioner = _Questioner(model, suite, asking, arrange, {tap: tap for tap in chosen.all_taps})
    answered = questioner.ask()
    unsteady = questioner.ask_again(answered)
    on_seeds = suite.seed_outputs(suite.victim.activations), suite.seed_outputs(answered.activations)
    layer_map: dict[str, str] = {}
    try:
        layer_map = align(chosen, *on_seeds)
    except NoLayerError as error:
        unmatched = str(error)
    activations = {layer: answered.activations[tap] for layer, tap in layer_map.items()}
    mapped = answered.mapped
    if unmatched and model.unseen:
        unmatched += f": {model.unseen}"
    return Observation(
        model=ModelInfo.of(model, asking.layout),
        suite=suite.digest,
        probabilities=mapped.probabilities,
        activations=_in_order(model, suite, activations, layer_map, mapped.classes),
        layer_map=layer_map,
        unmatched=unmatched,
        classes=mapped.classes,
        unmapped=mapped.unmapped and other_classes(model, suite.victim.model.classes),
        preprocessing=answered.preprocessing,
        inferred=(*answered.inferred, *(("classes",) if mapped.inferred else ())),
        notes=(*output_notes, *answered.notes, *mapped.notes, *_layer_notes(chosen, layer_map, *on_seeds)),
        unsteady=unsteady,
    )


def labeller(model: Model, suite: Suite, asking: QuerySettings) -> Callable[[int], int]:
    """What asks a model one case of a suite, by its row, and gives the label: a class of the victim's.

    Nothing is inferred of the model, so that nothing else has to be asked: inputs and classes are the victim's, or as
    ``asking`` says.

    Args:
        model: Anybody's model.
        suite: The suite.
        asking: How, where the model does not tell.

    Raises:
        ModelError: When the model takes other inputs or has other classes; and what is returned, as :func:`ask`.
        UsageError: When ``asking`` names what does not exist.
    """
    model = only_output(model, suite, asking)
    arrange, preprocessing = _arrangement(model, suite, asking), asking.preprocessing
    prepare, inputs = _prepare(model, suite, asking, arrange, preprocessing), suite.cases.inputs
    expected = suite.victim.model.classes
    if asking.classes is None and model.classes != expected:
        raise ModelError(f"{model.name}: {other_classes(model, expected)}")
    columns = list(asking.classes or range(expected))

    def label(row: int) -> int:
        answers, _ = ask(model, inputs[row : row + 1], {}, prepare)
        return int(answers[0, columns].argmax())

    return label


def _choose_output(model: Model, suite: Suite, asking: QuerySettings) -> tuple[Model, tuple[str, ...]]:
    check_asking(asking, suite)

    def questioner(candidate: Model) -> _Questioner:
        return _Questioner(candidate, suite, asking, _arrangement(candidate, suite, asking), {})

    return choose_output(
        model, suite, asking, lambda one: questioner(one).few_seeds(), lambda one: questioner(one).all_seeds()
    )


def _arrangement(model: Model, suite: Suite, asking: QuerySettings) -> Prepare:
    check_asking(asking, suite)
    if asking.classes and max(asking.classes) >= model.classes:
        raise ModelError(f"{model.name}: expected an output {max(asking.classes)}, found {model.classes} classes")
    try:
        return arrangement(
            model.name,
            suite.cases.inputs.shape[1:],
            model.input.with_layout(asking.layout),
            suite.victim.model.input.layout,
        )
    except InputError as error:
        raise ModelError(str(error)) from None


def _prepare(
    model: Model, suite: Suite, asking: QuerySettings, arrange: Prepare, preprocessing: Preprocessing | None
) -> Prepare:
    if preprocessing is None:
        return arrange
    shape = arrange(suite.cases.inputs[:1]).shape[1:]
    prepare = preprocessing.preparing(model.name, shape, suite.bounds, model.input.layout or asking.layout)
    return lambda x: prepare(arrange(x))


def check_asking(asking: QuerySettings, suite: Suite) -> None:
    """Refuse what does not fit the suite, before any model is run: it is the caller's mistake, not one model's.

    Raises:
        UsageError: For a layer that the suite does not have, or classes that are not one for each of the victim's.
    """
    for layer in asking.layers:
        if layer not in suite.layers:
            raise UsageError(
                f"the suite has no layer {layer!r}; its layers are {', '.join(suite.layers) or 'none'}",
                code="unknown-name",
            )
    classes, expected = asking.classes, suite.victim.model.classes
    if classes is not None and len(classes) != expected:
        raise UsageError(
            f"expected an output for each of the victim's {expected} classes, found {len(classes)}", code="wrong-value"
        )
    if classes is not None and (len(set(classes)) != expected or min(classes) < 0):
        raise UsageError(
            f"expected {expected} different outputs, counted from 0, found {listed(classes)}", code="wrong-value"
        )


@dataclass(frozen=True, eq=False)
class _Answers:
    # What a model answered, and how it came to be asked so.
    probabilities: Array  # of its own classes
    mapped: ClassMapping
    activations: dict[str, Array]
    preprocessing: Preprocessing | None = None
    inferred: tuple[Guess, ...] = ()
    notes: tuple[str, ...] = ()


class _Questioner:
    # Asks one model with the preprocessing that was given, or with none, or with the one that it turns out to expect.

    def __init__(
        self, model: Model, suite: Suite, asking: QuerySettings, arrange: Prepare, layer_map: Mapping[str, str]
    ) -> None:
        self._model, self._suite, self._asking = model, suite, asking
        self._arrange, self._layer_map = arrange, layer_map
        self._shape = arrange(suite.cases.inputs[:1]).shape[1:]
        self._layout = model.input.layout or asking.layout
        self._clean = np.flatnonzero(suite.rows("clean"))
        self._labels = labels = suite.cases.labels[self._clean]
        # Who always gives one class gets its share right; a model that is fed what it does not know does just this.
        chance = float(np.bincount(labels).max() / len(labels))
        self._poor, self._good = (chance + share * (1 - chance) for share in (_POOR, _GOOD))
        classes = asking.classes is not None or model.classes == suite.victim.model.classes
        self._telling = classes and chance <= _MOST_CHANCE

    def ask(self) -> _Answers:
        preprocessing = self._asking.preprocessing
        if preprocessing is not None:
            return self._whole(preprocessing, (), (f"its inputs are prepared by {preprocessing}, as was asked for",))
        infer = self._asking.infer and self._telling
        try:
            plain = self._whole(None, (), ())
        except SameAnswerError:
            answers = self._infer("which all get the same answer as they are") if infer else None
            if answers is None:
                raise
            return answers
        if not self._telling:
            return plain
        accuracy, _ = self._quality(plain.mapped, self._clean, self._labels)
        if accuracy > self._poor:
            return plain
        answers = self._infer(f"{accuracy:.1%} as they are") if infer else None
        doubt = (
            f"classifies {accuracy:.1%} of the seeds correctly, near chance: if it expects other inputs or classes "
            "than the victim, say so with --suspect-input or --classes"
        )
        return answers or replace(plain, notes=(doubt,))

    def few_seeds(self) -> tuple[Array, Array] | None:
        """What it answers to a few seeds, as the user says they are asked: their places, and the probabilities."""
        places = np.arange(len(self._clean))[:: -(-len(self._clean) // _PROBES)]
        inputs, prepare = self._suite.cases.inputs[self._clean[places]], self._prepare(self._asking.preprocessing)
        answers, _ = ask(self._model, inputs, {}, prepare)
        mapped = self._map(answers, np.arange(len(places)), self._labels[places]).probabilities
        return None if mapped is None else (places, mapped)

    def all_seeds(self) -> tuple[Array, Array] | None:
        """The same of all seeds, as it turns out to expect them."""
        mapped = self.ask().mapped.probabilities
        return None if mapped is None else (np.arange(len(self._clean)), mapped[self._clean])

    def ask_again(self, answered: _Answers) -> str | None:
        """What changes when some cases are asked again as they were: one line; None where nothing does."""
        cases, prepare = self._suite.cases, self._prepare(answered.preprocessing)
        return ask_again(self._model, cases.inputs, cases.sets, answered.probabilities, answered.activations, prepare)

    def _infer(self, plainly: str) -> _Answers | None:
        # The standard preprocessing with which it classifies the most seeds correctly, and the most surely.
        suite = self._suite
        rows = self._clean[:: -(-len(self._clean) // _PROBES)]
        tried = {}
        for name, preprocessing in candidates(self._model.input, self._shape, suite.bounds, self._layout).items():
            try:
                answers, _ = ask(self._model, suite.cases.inputs[rows], {}, self._prepare(preprocessing))
            except ModelError:
                continue
            places, labels = np.arange(len(rows)), suite.cases.labels[rows]
            quality = self._quality(self._map(answers, places, labels), places, labels)
            if quality[0] >= self._good:
                tried[name] = (quality, preprocessing)
        if not tried:
            return None
        best = max(tried, key=lambda name: tried[name][0])
        (accuracy, _), preprocessing = tried[best]
        others = "".join(f", {name} {tried[name][0][0]:.1%}" for name in tried if name != best)
        note = (
            f"its inputs are prepared to {best} ({preprocessing}), inferred from the seeds classified correctly: "
            f"{accuracy:.1%} so, {plainly}{others}"
        )
        return self._whole(preprocessing, ("preprocessing",), (note,))

    def _whole(
        self, preprocessing: Preprocessing | None, inferred: tuple[Guess, ...], notes: tuple[str, ...]
    ) -> _Answers:
        inputs = self._suite.cases.inputs
        answers, activations = ask(self._model, inputs, self._layer_map, self._prepare(preprocessing))
        mapped = self._map(answers, self._clean, self._labels)
        return _Answers(answers, mapped, activations, preprocessing, inferred, notes)

    def _prepare(self, preprocessing: Preprocessing | None) -> Prepare:
        return _prepare(self._model, self._suite, self._asking, self._arrange, preprocessing)

    def _map(self, answers: Array, clean: Array, labels: Array) -> ClassMapping:
        return map_classes(answers, clean, labels, self._suite.victim.model.classes, self._asking.classes)

    @staticmethod
    def _quality(mapped: ClassMapping, rows: Array, labels: Array) -> tuple[float, float]:
        # Of the seeds, which are these rows: the share classified correctly, and the mean probability of the truth.
        if mapped.probabilities is None:
            return 0.0, 0.0
        p = mapped.probabilities[rows]
        return float(np.mean(p.argmax(axis=1) == labels)), float(p[np.arange(len(p)), labels].mean())


def _in_order(
    model: Model,
    suite: Suite,
    activations: Mapping[str, Array],
    layer_map: Mapping[str, str],
    order: Sequence[int] | None,
) -> dict[str, Array]:
    # The neurons of the logits are classes: they are put in the victim's order where they are compared with its.
    ordered = dict(activations)
    owner = list(suite.victim.model.layers)[-1]
    # One whose layers cannot be seen may name none.
    if order is not None and owner in layer_map and layer_map[owner] == list(model.layers)[-1]:
        width = model.layers[layer_map[owner]]
        if width == len(order):
            ordered[owner] = ordered[owner][:, list(order)]
        elif width == 1 and tuple(order) == (1, 0):
            ordered[owner] = -ordered[owner]
    return ordered


def _candidates(model: Model, suite: Suite, fixed: Mapping[str, str]) -> tuple[Candidates, str | None]:
    owner = suite.victim.model.layers
    if not suite.layers:
        return Candidates(owner, model.layers, {}), "the suite compares no layers"
    if Access.LAYERS not in model.access:
        return Candidates(owner, model.layers, {}), "the model's layers cannot be seen"
    try:
        return find_candidates(model.name, owner, model.layers, suite.layers, fixed), None
    except NoLayerError as error:
        return Candidates(owner, model.layers, {}), str(error)


def _layer_notes(
    chosen: Candidates, layer_map: Mapping[str, str], ours: Mapping[str, Array], theirs: Mapping[str, Array]
) -> Iterator[str]:
    # What is to be said of layers that neither the user nor their place finds.
    for layer, tap in layer_map.items():
        if layer not in chosen.fixed and tap != chosen.places.get(layer):
            count, width = len(chosen.taps[layer]), chosen.model[tap]
            among = f"the most alike of {count} taps" if count > 1 else "the only tap"
            # A name may be the same in another network: it is what the tap answers that counts.
            other = "the tap of the same name" if tap == layer else f"{tap!r}, by what it answers and not by its place"
            cka = linear_cka(ours[layer], theirs[tap])
            yield f"{layer!r} is compared with {other}: {among} of {width} neurons (linear CKA {cka:.3f})"
