"""Run a model on a suite, once; the only place where a suspect is run."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import get_args

import numpy as np

from deepjudge_core.components.schemes import KeyAnswers
from deepjudge_core.errors import InputError, ModelError, UsageError
from deepjudge_core.models.asking import OtherAnswersError, SameAnswerError, ask, ask_again, exchange
from deepjudge_core.models.cka import linear_cka
from deepjudge_core.models.exchange import Exchange
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.layouts import AmbiguousLayoutError, OtherShapeError
from deepjudge_core.models.model import Access, Classifier, Model, complete, note_of_fixed
from deepjudge_core.models.preprocessing import Prepare, Preprocessing
from deepjudge_core.models.recovery import Recovered, Recovery, taps_to_try
from deepjudge_core.models.sampling import evenly
from deepjudge_core.naming import option
from deepjudge_core.observing.arranging import Arranging
from deepjudge_core.observing.classes import ClassMapping, class_order, in_classes, listed, map_classes
from deepjudge_core.observing.counting import Counting
from deepjudge_core.observing.expectation import (
    Correctness,
    Expectation,
    candidates,
    find_expectation,
    is_better,
    probes_of,
)
from deepjudge_core.observing.gateways import as_described, changes_keys, expect_one_label, observe_through
from deepjudge_core.observing.keys import answer_keys
from deepjudge_core.observing.layers import Candidates, NoLayerError, align, find_candidates, parted
from deepjudge_core.observing.outputs import choose_output, only_output, other_classes
from deepjudge_core.observing.routing import switching
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.suites.observation import Guess, Observation, Trial
from deepjudge_core.suites.outputs import chance
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array, Layout

# Share of the way from chance to the victim, which classifies all of its seeds correctly, below which a model has not
# learnt the task, or is not asked as it expects.
_POOR = 0.25
_SENSIBLE = 0.5  # the same of one whose pictures are resized, though nobody says how
_SOME_SEEDS = 200  # at most, on which each output is tried
_FEW_SEEDS = 50  # on which odds are compared with the victim's
_MOST_HELD = 2**28  # bytes of the answers of taps that are compared with the layers
_TELLS, _TELLS_MORE = 0.9, 0.1  # share of a layer's variance that a tap tells, and that it tells more than another
_HAS_DECOYS = (
    "has layers like the victim's on which its answers do not depend: the outputs of {} can be exchanged between cases"
)
_MOST_DECOYS = 8  # times that taps are chosen anew, since one of them does not count
_MOST_CHANCE = 0.8  # where more of the seeds are of one class, accuracy says too little
_SHOWS_CLASSES = 0.5  # share of the seeds that a model gets right if the order of its classes is as somebody says
_ORDERED = 0.5  # share of the inputs that a model gets right whose classes are in order


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
    if model.gateway is not None:
        return observe_through(model.gateway, model, suite, asking, _observe)
    return _observe(model, suite, asking)


def _observe(model: Model, suite: Suite, asking: QuerySettings) -> Observation:
    asking, layout_notes = _find_layout(model, suite, asking)
    model, output_notes, doubt = _choose_output(model, suite, asking)
    arranging = _arrangement(model, suite, asking)
    chosen, unmatched = _candidates(model, suite, asking.layers)
    questioner = _Questioner(model, suite, asking, arranging, chosen)
    try:
        answered = questioner.ask()
    except OtherAnswersError as error:
        # What it answers is judged, and not the layers of what it does not answer.
        chosen, unmatched = Candidates(chosen.owner, chosen.model, {}), _without_name(model, error)
        questioner = _Questioner(model, suite, asking, arranging, chosen, recover=False)
        answered = questioner.ask()
    doubts = (doubt, answered.doubt, questioner.ask_again(answered), questioner.ask_moved(answered))
    unsteady = "; ".join(filter(None, doubts)) or None
    layer_map, unmatched = answered.layer_map, unmatched or answered.unmatched
    on_seeds = suite.seed_outputs(suite.victim.activations), suite.seed_outputs(answered.activations)
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
        notes=(
            *model.notes,
            *note_of_fixed(model),
            *layout_notes,
            *output_notes,
            *_reading_notes(model, suite),
            *answered.notes,
            *mapped.notes,
            *_layer_notes(chosen, layer_map, *on_seeds),
            *answered.agreement,
        ),
        unsteady=unsteady,
        tried=answered.tried,
        accuracy=answered.accuracy,
        independent=suite.victim.independent,
        keys=questioner.on_keys(answered) if suite.keys else (),
        recovered={layer: one.outputs for layer, one in answered.recovered.items()},
        recovered_from={layer: one.tap for layer, one in answered.recovered.items()},
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
    asking = asking if model.gateway is None else as_described(model.gateway, asking)
    model = only_output(model, suite, asking).reading(suite.victim.independent)
    arranging, preprocessing = _arrangement(model, suite, asking), asking.preprocessing or suite.victim.preprocessing
    if arranging.ways and not arranging.given:
        raise ModelError(f"{_other_shape(model, suite)}: {_say_how(arranging)}")
    inputs = suite.cases.inputs
    prepare = arranging.prepare(preprocessing, inputs, model.input.layout or asking.layout)
    expected = suite.victim.model.classes
    if asking.classes is None and model.classes != expected:
        raise ModelError(f"{model.name}: {other_classes(model, expected)}")
    columns = list(asking.classes or range(expected))

    def label(row: int) -> int:
        answers, _ = ask(model, inputs[row : row + 1], {}, prepare)
        shown = answers[0, columns]
        if model.gateway is not None:
            expect_one_label(model.gateway, model.name, shown)
        return int(shown.argmax())

    return label


def _reading_notes(model: Model, suite: Suite) -> tuple[str, ...]:
    # Once it was asked: its first answers may tell what it ends in.
    expected = suite.victim.independent
    if model.independent is None and expected:
        return ("its scores are read as one sigmoid per class, like the victim's",)
    if bool(model.independent) == expected:
        return ()
    ends, victim = ("one sigmoid per class", "a softmax")[:: -1 if expected else 1]
    return (f"it ends in {ends} and the victim in {victim}; its scores are read like the victim's",)


def _choose_output(model: Model, suite: Suite, asking: QuerySettings) -> tuple[Model, tuple[str, ...], str | None]:
    check_asking(asking, suite)

    def questioner(candidate: Model) -> _Questioner:
        return _Questioner(candidate, suite, asking, _arrangement(candidate, suite, asking))

    return choose_output(
        model,
        suite,
        asking,
        lambda one: questioner(one).few_seeds(),
        lambda one: questioner(one).all_seeds(),
    )


def _find_layout(model: Model, suite: Suite, asking: QuerySettings) -> tuple[QuerySettings, tuple[str, ...]]:
    # Where the model expects the channels, as its answers to the seeds show if it can be read both ways.
    check_asking(asking, suite)
    try:
        Arranging.of(model, suite, asking)
    except AmbiguousLayoutError:
        pass
    except InputError:
        return asking, ()
    else:
        return asking, ()
    labels, right = suite.cases.labels[suite.rows("clean")], dict[Layout, Array]()
    for layout in get_args(Layout):
        one = replace(asking, layout=layout)
        with suppress(ModelError, InputError):
            places, answers = _Questioner(model, suite, one, Arranging.of(model, suite, one)).few_seeds() or ([], None)
            if answers is not None:
                right[layout] = answers.argmax(axis=1) == labels[places]
    if len(right) < 2:
        return asking, ()
    best, other = sorted(right, key=lambda layout: -right[layout].mean())
    if not is_better(right[best], right[other]) or right[best].mean() <= _least(labels):
        return asking, ()
    shares = [f"{right[layout].mean():.1%}" for layout in (best, other)]
    note = (
        f"its inputs have their {best.replace('_', ' ')}, inferred from its answers to "
        f"{len(right[best])} seeds: {shares[0]} are correct this way, {shares[1]} the other way"
    )
    return replace(asking, layout=best), (note,)


def _least(labels: Array) -> float:
    # Share of the seeds above which a model has learnt the task.
    usual = chance(labels)
    return usual + _POOR * (1 - usual)


def _arrangement(model: Model, suite: Suite, asking: QuerySettings) -> Arranging:
    check_asking(asking, suite)
    if asking.classes and max(asking.classes) >= model.classes:
        raise ModelError(f"{model.name}: expected an output {max(asking.classes)}, found only {model.classes} classes")
    try:
        return Arranging.of(model, suite, asking)
    except OtherShapeError as error:
        raise ModelError(str(error), code="other-inputs") from None
    except InputError as error:
        raise ModelError(str(error)) from None


def _other_shape(model: Model, suite: Suite) -> str:
    shape = "x".join(map(str, suite.cases.inputs.shape[1:]))
    return f"{model.name}: expected inputs of shape {model.input}, found those of the suite, {shape}"


def _say_how(arranging: Arranging) -> str:
    way = str(arranging.ways[0])
    return f"say how it resizes pictures with {option('QuerySettings.preprocessing', way)}"


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
            f"expected one output for each of the victim's {expected} classes, found {len(classes)}", code="wrong-value"
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
    activations: dict[str, Array]  # by tap
    layer_map: Mapping[str, str]  # layer to the tap that answers it
    unmatched: str | None = None  # why none does
    preprocessing: Preprocessing | None = None
    inferred: tuple[Guess, ...] = ()
    notes: tuple[str, ...] = ()
    tried: tuple[Trial, ...] = ()
    accuracy: float | None = None
    recovered: Mapping[str, Recovered] = field(default_factory=dict)  # by layer
    doubt: str | None = None  # why it is not honest, where it has layers that do not count in place of the victim's
    agreement: tuple[str, ...] = ()  # what is to be said of taps that do not count, or tell little


class _Questioner:
    # Asks one model with the preprocessing that was given, or with none, or with the one that it turns out to expect.

    def __init__(
        self,
        model: Model,
        suite: Suite,
        asking: QuerySettings,
        arranging: Arranging,
        chosen: Candidates | None = None,
        *,
        recover: bool = True,
    ) -> None:
        self._model, self._suite, self._asking = model.reading(suite.victim.independent), suite, asking
        self._arranging, self._chosen = arranging, chosen or Candidates({}, {}, {})
        self._recover = recover and chosen is not None and bool(suite.layers) and Access.LAYERS in model.access
        self._clean = np.flatnonzero(suite.rows("clean"))
        self._labels = suite.cases.labels[self._clean]
        classes = asking.classes is not None or model.classes == suite.victim.model.classes
        self._telling = classes and chance(self._labels) <= _MOST_CHANCE

    def ask(self) -> _Answers:
        given = self._asking.preprocessing
        expected = self._expected()
        answers = replace(
            self._whole(expected.preprocessing), tried=expected.tried, accuracy=expected.accuracy, notes=expected.notes
        )
        accuracy = float(self._correctness(answers.mapped, self._clean, self._labels).right.mean())
        if self._arranging.ways and not self._arranging.given:
            self._check_resized(accuracy, expected)
            notes = (*self._resized(expected), *answers.notes)
            return replace(answers, inferred=("preprocessing",), notes=notes)
        if given is not None:
            described = self._model.gateway is not None and given is self._model.gateway.expects
            word = "as its description says" if described else "as requested"
            return replace(answers, notes=(f"its inputs are prepared by {expected.preprocessing}, {word}",))
        if expected.inferred:
            return replace(answers, inferred=("preprocessing",))
        if not self._telling:
            return answers
        if accuracy <= _least(self._labels):
            doubt = (
                f"classifies {accuracy:.1%} of the seeds correctly, near chance; if it expects other "
                f"inputs or classes than the victim, say so with {option('QuerySettings.preprocessing')}, "
                f"{option('QuerySettings.layout')} or "
                f"{option('QuerySettings.classes')}"
            )
            return replace(answers, notes=(*answers.notes, doubt))
        return answers

    def _resized(self, expected: Expectation) -> Iterator[str]:
        said = f"it takes inputs of shape {self._model.input}: the suite's are prepared by {expected.preprocessing}"
        resized = any(way.size for way in self._arranging.ways)
        yield f"{said}. Resizing weakens what the test cases show, of copies too" if resized else said

    def _check_resized(self, accuracy: float, expected: Expectation) -> None:
        # Of what resizing nobody stated: it has to make the model answer as one that knows the task.
        where = _other_shape(self._model, self._suite)
        if not self._telling:
            raise ModelError(
                f"{where}; its classes do not show whether it answers resized pictures sensibly: "
                f"{_say_how(self._arranging)}, and name its classes ({option('QuerySettings.classes')})",
                code="other-inputs",
            )
        usual = chance(self._labels)
        if accuracy < usual + _SENSIBLE * (1 - usual):
            tried = len(expected.tried) + 1
            raise ModelError(
                f"{where}; prepared by {expected.preprocessing}, the best of {tried}, it classifies {accuracy:.1%} of "
                f"the seeds correctly, which is too little to be judged: {_say_how(self._arranging)}",
                code="other-inputs",
            )

    def few_seeds(self) -> tuple[Array, Array] | None:
        """What it answers to a few seeds, as the user says they are asked: their places, and the probabilities."""
        places, mapped = self._few
        return None if mapped.probabilities is None else (places, mapped.probabilities)

    @cached_property
    def _few(self) -> tuple[Array, ClassMapping]:
        places = np.arange(len(self._clean))[:: -(-len(self._clean) // _SOME_SEEDS)]
        usual = self._asking.preprocessing or self._suite.victim.preprocessing
        inputs, prepare = self._suite.cases.inputs[self._clean[places]], self._prepare(usual)
        answers, _ = ask(self._model, inputs, {}, prepare)
        return places, self._map(answers, np.arange(len(places)), self._labels[places])

    def all_seeds(self) -> tuple[Array, Array] | None:
        """The same of all seeds, as it turns out to expect them."""
        mapped = self.ask().mapped.probabilities
        return None if mapped is None else (np.arange(len(self._clean)), mapped[self._clean])

    def ask_again(self, answered: _Answers) -> str | None:
        """What changes when some cases are asked again as they were: one line; None where nothing does."""
        cases, prepare = self._suite.cases, self._prepare(answered.preprocessing)
        return ask_again(self._model, cases.inputs, cases.sets, answered.probabilities, answered.activations, prepare)

    def ask_moved(self, answered: _Answers) -> str | None:
        """What changes when cases move by a step of the data: one line; None where nothing does."""
        prepare = self._prepare(answered.preprocessing)
        return switching(self._suite, lambda inputs: ask(self._model, inputs, {}, prepare)[0].argmax(axis=1))

    def on_keys(self, answered: _Answers) -> tuple[KeyAnswers, ...]:
        """What it answers to the suite's keys, asked as it was asked the cases."""
        mapped, expected = answered.mapped, self._suite.victim.model.classes
        order = tuple(range(expected)) if mapped.classes is None else mapped.classes
        unmapped = mapped.unmapped or self._doubt_of_classes(mapped)

        def to_classes(answers: Array) -> Array | None:
            return None if unmapped else in_classes(answers, order, self._suite.victim.independent)

        prepare = self._prepare(answered.preprocessing)
        if self._model.gateway is not None and changes_keys(self._model.gateway, suite=self._suite, prepare=prepare):
            unmapped = "its interface changes inputs of the keys"
        try:
            return answer_keys(self._model, self._suite, prepare=prepare, to_classes=to_classes, unmapped=unmapped)
        except ModelError as error:
            # What fails on the inputs of keys alone has answered the cases, and is judged by them.
            missing = f"it does not answer the inputs of the keys: {_without_name(self._model, error)}"
            return tuple(KeyAnswers(missing=None if key.inputs is None else missing) for key in self._suite.keys)

    def _doubt_of_classes(self, mapped: ClassMapping) -> str | None:
        # Who may name any order of classes makes the labels of a key fit an honest model: the seeds have to show it.
        expected = self._suite.victim.model.classes
        if self._asking.classes in (None, tuple(range(expected))) or mapped.probabilities is None:
            return None
        labels = mapped.probabilities[self._clean].argmax(axis=1)
        better, _ = class_order(labels, self._labels, expected)
        if better is None and float((labels == self._labels).mean()) > _SHOWS_CLASSES:
            return None
        return "the order of its classes was given, and its answers to the seeds do not show it"

    def _expected(self) -> Expectation:
        # What it expects of its inputs, as its answers to the probes show where nobody says it.
        suite, given = self._suite, self._asking.preprocessing
        plain = given or suite.victim.preprocessing
        usual = self._arranging.completed(plain)
        if not (self._telling and self._asking.infer) or self._counts():
            return Expectation(usual)
        probes = probes_of(suite)
        choices = self._choices(plain)

        def answer(preprocessing: Preprocessing | None, places: Array) -> Correctness:
            return self._on(probes.inputs[places], probes.labels[places], preprocessing)

        owner = suite.victim.probabilities
        odds = Correctness.of(None if owner is None else owner[self._clean], self._labels).odds

        def apart(preprocessing: Preprocessing) -> float:
            few = evenly(np.arange(len(self._clean)), _FEW_SEEDS)
            own = self._on(suite.cases.inputs[self._clean[few]], self._labels[few], preprocessing).odds
            return float(np.abs(own - odds[few]).mean() / np.abs(odds[few]).mean())

        expected = find_expectation(probes, suite, choices, usual, answer, apart)
        return expected if suite.probes is not None else replace(expected, accuracy=None)

    def _choices(self, plain: Preprocessing | None) -> dict[str, Preprocessing]:
        # What may be expected other than the usual: other numbers; of pictures of another size, other ways to it.
        suite, given, ways = self._suite, self._asking.preprocessing, self._arranging.ways
        if given is not None and (self._arranging.given or len(ways) < 2):
            return {}
        arrange = self._arranging.arrange(ways[0] if ways else None)
        shape = arrange(suite.cases.inputs[:1]).shape[1:]
        layout = self._model.input.layout or self._asking.layout
        numbers = {} if given else candidates(self._model.input, shape, suite.bounds, layout, suite.moments, plain)
        choices = {name: one.with_(ways[0]) for name, one in numbers.items()} if ways else dict(numbers)
        usual = plain or self._arranging.as_they_come
        bases = {"": usual, **{f"{name},": one for name, one in numbers.items() if "," not in name}}
        for way, (name, one) in product(ways[1:], bases.items()):
            choices[f"{name}{way}"] = one.with_(way)
        return choices

    def _counts(self) -> bool:
        # Whether the suite's inputs stand for something else, such as words, of which no number is another's double.
        theirs = self._model.input.counts and bool((self._suite.cases.inputs % 1 == 0).all())
        return theirs or self._suite.victim.model.input.counts

    def _on(self, inputs: Array, labels: Array, preprocessing: Preprocessing | None) -> Correctness:
        answers, _ = ask(self._model, inputs, {}, self._prepare(preprocessing))
        rows = np.arange(len(labels))
        correctness = self._correctness(self._map(answers, rows, labels), rows, labels)
        if correctness.right.mean() > _ORDERED or self._order is None:
            return correctness
        ordered = self._map(answers, rows, labels, self._order)
        return max(correctness, self._correctness(ordered, rows, labels), key=lambda one: one.right.mean())

    @cached_property
    def _order(self) -> tuple[int, ...] | None:
        # The order of its classes, as the seeds show it: on inputs as they come too many are wrong for that.
        try:
            return self._few[1].classes
        except SameAnswerError:
            return None

    def _whole(self, preprocessing: Preprocessing | None) -> _Answers:
        # Taps of which all answers together are large are compared on the seeds before, some of them at a time; the
        # other cases are asked of those alone that are chosen.
        suite, chosen, prepare = self._suite, self._chosen, self._prepare(preprocessing)
        inputs, taps = suite.cases.inputs, chosen.all_taps
        ours, layer_map, unmatched = suite.seed_outputs(suite.victim.activations), dict[str, str](), None
        parts = chosen.parts(len(inputs), _MOST_HELD)
        counting = self._counting(prepare)

        def asked(left: Candidates) -> Iterator[Mapping[str, Array]]:
            seeds = inputs[self._clean]
            return (ask(self._model, seeds, part, prepare)[1] for part in left.parts(len(seeds), _MOST_HELD))

        try:
            if len(parts) > 1:
                layer_map = self._matched(ours, asked, counting)
                taps = tuple(dict.fromkeys(layer_map.values()))
        except NoLayerError as error:
            unmatched, taps = str(error), ()
        others = parted({tap: n for tap, n in self._to_recover.items() if tap not in taps}, len(inputs), _MOST_HELD)
        together = self._together(taps, others) if len(parts) <= 1 else ()
        try:
            answers, activations = ask(self._model, inputs, _each((*taps, *together)), prepare, suite.cases.sets)
            others = [] if together else others
        except OtherAnswersError:
            raise
        except ModelError:
            if not together:
                raise
            # What a tap gives that is compared with no layer is no reason to refuse the model.
            answers, activations = ask(self._model, inputs, _each(taps), prepare, suite.cases.sets)
            others = [_each([tap]) for tap in together]
        recovery = self._recovered(activations, others, prepare)
        try:
            if len(parts) <= 1:
                seen = suite.seed_outputs(activations)
                layer_map = self._matched(ours, lambda left: [seen], counting)
        except NoLayerError as error:
            unmatched = str(error)
        decoys = ", ".join(map(repr, counting.decoys))
        mapped = self._map(answers, self._clean, self._labels)
        kept = {tap: outputs for tap, outputs in activations.items() if tap in chosen.all_taps}
        return _Answers(
            answers,
            mapped,
            kept,
            layer_map,
            unmatched,
            preprocessing,
            recovered=recovery.best if recovery else {},
            doubt=_HAS_DECOYS.format(decoys) if decoys and not layer_map else None,
            agreement=(*_counting_notes(layer_map, counting), *_elsewhere(layer_map, recovery)),
        )

    def _counting(self, prepare: Prepare) -> Counting:
        def exchanged(inputs: Array, tap: str) -> Exchange | None:
            return exchange(self._model, inputs, tap, prepare)

        return Counting(self._suite, exchanged, independent=bool(self._model.independent))

    def _matched(
        self,
        ours: Mapping[str, Array],
        answers: Callable[[Candidates], Iterable[Mapping[str, Array]]],
        counting: Counting,
    ) -> dict[str, str]:
        # Layer to tap; what does not count is no candidate.
        chosen, logits = self._chosen, list(self._model.layers)[-1:]
        for _ in range(_MOST_DECOYS):
            layer_map = align(chosen, ours, answers(chosen))
            decoys = [tap for tap in layer_map.values() if tap not in logits and counting.is_decoy(tap)]
            if not decoys:
                return layer_map
            chosen = chosen.without(decoys)
        raise NoLayerError(f"its answers do not depend on the {_MOST_DECOYS} most similar layers")

    @cached_property
    def _to_recover(self) -> Mapping[str, int]:
        return taps_to_try(self._model.layers) if self._recover else {}

    def _together(self, taps: Sequence[str], others: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
        # The other taps, where all of them fit into memory beside those that are compared.
        if len(others) != 1:
            return ()
        widths = sum(self._model.layers[tap] for tap in (*taps, *others[0]))
        return tuple(others[0]) if widths * len(self._suite.cases.inputs) <= _MOST_HELD // 4 else ()

    def _recovered(
        self, activations: Mapping[str, Array], others: Sequence[Mapping[str, str]], prepare: Prepare
    ) -> Recovery | None:
        # What the taps tell of the victim's layers; those that do not fit into memory at once are asked in parts.
        if not self._to_recover:
            return None
        suite = self._suite
        recovery = Recovery(suite.victim.activations, suite.seed)
        for tap in self._to_recover:
            if tap in activations:
                recovery.add(tap, activations[tap])
        for part in others:
            try:
                activations = ask(self._model, suite.cases.inputs, part, prepare, suite.cases.sets)[1]
            except OtherAnswersError:
                raise
            except ModelError:
                continue
            for tap, outputs in activations.items():
                recovery.add(tap, outputs)
        return recovery

    def _prepare(self, preprocessing: Preprocessing | None) -> Prepare:
        layout = self._model.input.layout or self._asking.layout
        return self._arranging.prepare(preprocessing, self._suite.cases.inputs, layout)

    def _map(self, answers: Array, clean: Array, labels: Array, order: tuple[int, ...] | None = None) -> ClassMapping:
        victim = self._suite.victim
        order = order or self._asking.classes
        return map_classes(answers, clean, labels, victim.model.classes, order, independent=victim.independent)

    @staticmethod
    def _correctness(mapped: ClassMapping, rows: Array, labels: Array) -> Correctness:
        return Correctness.of(None if mapped.probabilities is None else mapped.probabilities[rows], labels)


def _each(taps: Iterable[str]) -> dict[str, str]:
    return {tap: tap for tap in taps}


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


def _without_name(model: Model, error: ModelError) -> str:
    return str(error).removeprefix(f"{model.name}: ")


def _counting_notes(layer_map: Mapping[str, str], counting: Counting) -> Iterator[str]:
    if layer_map and counting.decoys:
        names = ", ".join(map(repr, counting.decoys))
        yield f"its answers do not depend on {names}, whose outputs can be exchanged between cases: not compared"
    for tap, reason in counting.unchecked.items():
        if tap in layer_map.values():
            yield f"whether its answers depend on {tap!r}, which is compared, was not checked: {reason}"


def _elsewhere(layer_map: Mapping[str, str], recovery: Recovery | None) -> Iterator[str]:
    # Layers that another tap tells much better than the one that is compared, for its width, tells them.
    if recovery is None:
        return
    for layer, tap in layer_map.items():
        best, share = recovery.best.get(layer), recovery.shares.get((layer, tap))
        if best is not None and share is not None and best.share >= _TELLS and best.share - share >= _TELLS_MORE:
            yield (
                f"{tap!r}, which is compared with {layer!r}, tells {max(share, 0):.0%} of its neurons' variance, "
                f"and {best.tap!r} tells {best.share:.0%}: the layer may be there"
            )


def _layer_notes(
    chosen: Candidates, layer_map: Mapping[str, str], ours: Mapping[str, Array], theirs: Mapping[str, Array]
) -> Iterator[str]:
    # What is to be said of layers that neither the user nor their place finds.
    for layer, tap in layer_map.items():
        if layer not in chosen.fixed and tap != chosen.places.get(layer):
            count, width = len(chosen.taps[layer]), chosen.model[tap]
            among = f"the most similar of {count} layers" if count > 1 else "the only layer"
            # A name may be the same in another network: it is what the tap answers that counts.
            other = (
                "the layer of the same name"
                if tap == layer
                else f"{tap!r}, because of its outputs and not its position"
            )
            cka = linear_cka(ours[layer], theirs[tap])
            yield f"{layer!r} is compared with {other}: {among} with {width} neurons (linear CKA {cka:.3f})"
