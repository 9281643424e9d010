"""What plugins hand over: adapters, generators, metrics and rules, and the values that pass between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from deepjudge_core.components.values import Answers, Cases, CaseSet, Chance, Group, Judgement
from deepjudge_core.errors import PluginError
from deepjudge_core.models.adapters import Extra
from deepjudge_core.models.model import Access, Model
from deepjudge_core.text import is_utf8
from deepjudge_core.types import Array
from deepjudge_core.weights.values import StoredWeights

Subject = CaseSet | Literal["cases", "weights", "ancestry", "keys"]
"""What a metric is taken over; ``cases`` are all of them. The metrics of keys are the core's."""
Reads = Literal["activations", "recovered"]
"""Which outputs of layers a metric goes by: those of the suspect's taps that are like the victim's layers, or what any
of its taps tells of the victim's neurons."""
ALL_CASES = "cases"
"""The subject of metrics that are taken over all cases of a suite."""
_OF_WEIGHTS = ("weights", "ancestry")
GeneratedSet = Literal["adversarial", "corners", "mistakes"]
"""The sets of cases that generators make."""

ALL_METRICS = "all"
"""What stands for every installed metric, where metrics are named."""


@dataclass(frozen=True)
class Format:
    """What a model's file turned out to be.

    Attributes:
        name: Its common name.
        runs_code: Whether opening or running such a file may do more than compute answers, as its author wrote. Such
            files from strangers are opened only in the full sandbox.
        without: Options of the adapter that such a file does not take, such as ``arch`` if it holds its own network.
        needs: Options that such a file cannot be opened without, such as ``arch`` if it holds weights alone.
    """

    name: str
    runs_code: bool = True
    without: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """Opens the models of one framework.

    Attributes:
        name: Name of the framework, as shown in reports.
        suffixes: File names that it reads end with one of these (lower case, with the dot).
        accepts: Whether a live object is one of this framework's models. It must not import the framework: it looks at
            the names of classes along ``type(source).__mro__``.
        open: ``open(source, *, name=None, batch_size=None, **options) -> Model`` for a :class:`pathlib.Path` or a live
            object that it accepts. Imports the framework; raises :class:`~deepjudge_core.errors.ModelError` with one
            line on failure. If it has a parameter ``expected``, it gets the :class:`InputSpec` of the inputs that the
            model will receive, if they are known.
        shared_suffixes: Like ``suffixes``, for endings that other kinds of files share: ``examine`` decides by the
            content whether it reads the file.
        folders: A folder with a file of one of these names, or with files of all names in a tuple, is one model of this
            framework.
        network: ``network(source, *, name, **options) -> Network`` for models that can be rebuilt and trained, with
            the options of ``open`` except ``batch_size``; or a live model made from it, which another adapter accepts.
            None if the adapter trains nothing.
        examine: ``examine(path) -> Format`` for a stranger's file or folder, from its first bytes or its table of
            contents; must not import the framework, nor read the whole. Raises
            :class:`~deepjudge_core.errors.ModelError` for files that are never opened, and says how to convert them.
            Without it, every file counts as one that runs code.
        companions: ``companions(path) -> names`` of the files in the same folder that a stranger's file says hold its
            weights; it must not import the framework. The names are only a request: existing files come along unless
            they are links, hidden, too large, deepjudge's own or other suspects.
        imports: Modules that ``open`` needs. They are imported before a stranger's file is read.
        copyable: Whether a process that has imported them still has one thread. Then it is copied for each model, and
            they are imported once.
        conversion: ``conversion(path) -> text`` for a file that the adapter never opens but that may hold such a model,
            such as a pickle: how its owner converts it, as a part of a message. None for other files. It looks at the
            name only.
        general: Whether it accepts objects of every kind, such as any callable. Such an adapter is asked last, and
            never about an object that is a model already.
        warm_up: ``warm_up(*, gradients)`` runs a tiny model of its own through everything that a model will be asked,
            with or without gradients, so that no file is opened for it later. Without it, a stranger's model can still
            reach files on systems without Landlock.
        weights: ``weights(source, *, name) -> StoredWeights`` reads the weights of a file, a folder or a live object
            that it accepts, with the options of ``open`` that it has a parameter for. It runs nothing, and imports no
            framework unless the format cannot be read without one. None if the adapter reads none.
        extra: The framework, if it may be missing, so that this is said before any model is opened.
        remote: Whether its models answer elsewhere: it opens URLs, and files that only say where. Nothing of such a
            model runs here, so it is opened in this process; a worker has no network. The author of such a file decides
            who gets the inputs and which secrets, so it is opened only if it is named, and never as one of a folder.
        cuda: ``cuda(number)`` says whether its framework can run models on this GPU, counted from 0; it imports the
            framework. Then ``open`` and ``network`` have a parameter ``device``: ``cpu``, ``cuda:N`` for a GPU that
            was asked about before, or None, which is the processor for a file and leaves a live model where it is.
            They raise :class:`~deepjudge_core.errors.ModelError` if the model does not run there. None if the adapter
            has no choice.
    """

    name: str
    suffixes: tuple[str, ...]
    accepts: Callable[[object], bool]
    open: Callable[..., Model]
    shared_suffixes: tuple[str, ...] = ()
    folders: tuple[str | tuple[str, ...], ...] = ()
    network: Callable[..., Any] | None = None
    examine: Callable[[Path], Format] | None = None
    companions: Callable[[Path], Sequence[str]] | None = None
    imports: tuple[str, ...] = ()
    copyable: bool = False
    warm_up: Callable[..., None] | None = None
    extra: Extra | None = None
    general: bool = False
    conversion: Callable[[Path], str | None] | None = None
    weights: Callable[..., StoredWeights] | None = None
    remote: bool = False
    cuda: Callable[[int], bool] | None = None

    def __post_init__(self) -> None:
        # A text instead of a tuple would claim every file that ends with one of its letters.
        for suffixes in (self.suffixes, self.shared_suffixes):
            if not isinstance(suffixes, tuple) or not all(str(s).startswith(".") for s in suffixes):
                raise PluginError(
                    f"{self.name}: expected suffixes as a tuple such as ('.onnx',), each starting with a dot, "
                    f"found {suffixes!r}"
                )
        if self.shared_suffixes and self.examine is None:
            raise PluginError(
                f"{self.name}: expected the function examine, which says what files ending in "
                f"{self.shared_suffixes} hold"
            )
        if not isinstance(self.folders, tuple):
            raise PluginError(f"{self.name}: expected folders as a tuple of file names, found {self.folders!r}")
        if self.companions is not None and not callable(self.companions):
            raise PluginError(
                f"{self.name}: expected companions as a function of a path that returns file names, found "
                f"{self.companions!r}"
            )

    def beside(self, path: Path) -> list[str]:
        """Plain names of the files that a model's file says hold its weights, in alphabetical order; itself may be one.

        Raises:
            ModelError: When it is no model.
        """
        names = self.companions(path) if self.companions else ()
        plain = {name for name in names if name == Path(name).name and name not in ("", "..")}
        return sorted(name for name in plain if "\0" not in name and is_utf8(name))

    @property
    def all_suffixes(self) -> tuple[str, ...]:
        """Those that are its own, and those that it shares."""
        return (*self.suffixes, *self.shared_suffixes)


@dataclass(frozen=True)
class Within:
    """How far cases may be from their seeds, so that others can check it without the victim.

    Attributes:
        limit: ``limit(options) -> float``, of all options as they are recorded: the greatest distance, as a share of
            the input range, or of the places of an input.
        places: Whether the distance is the share of the places that were changed, of which one always may be; by
            default it is the greatest change of a place (L-inf).
    """

    limit: Callable[[Mapping[str, Any]], float]
    places: bool = False

    def distances(self, cases: Array, seeds: Array, span: float | Array) -> Array:
        """``(n,)`` distances of cases ``(n, *shape)`` from their seeds.

        Args:
            cases: The cases.
            seeds: Of each case its seed.
            span: Width of the input range, or of that of each place.
        """
        changes = (np.abs(cases.astype(np.float64) - seeds) / span).reshape(len(cases), -1)
        if not self.places:
            greatest: Array = changes.max(axis=1, initial=0.0)
            return greatest
        changed = (changes > 0).sum(axis=1)
        shares: Array = np.where(changed > 1, changed / changes.shape[1], 0.0)
        return shares


@dataclass(frozen=True)
class Generator:
    """Makes test cases by running the victim.

    Attributes:
        name: How the user chooses it.
        makes: The set that its cases belong to: ``adversarial``, ``corners`` or ``mistakes``. The core keeps those
            ``adversarial`` cases and ``mistakes`` that the victim misclassifies.
        needs: What it asks of the victim: an :class:`Access`.
        generate: ``generate(task, **options) -> Cases``; options are its keyword-only parameters with defaults.
        within: How far its cases may be from their seeds; None if nothing limits that.
        each_seed: Whether it makes exactly one case of each seed.
    """

    name: str
    makes: GeneratedSet
    needs: Access
    generate: Callable[..., Cases]
    within: Within | None = None
    each_seed: bool = False

    def __post_init__(self) -> None:
        expect_one_of(self.name, "makes", self.makes, get_args(GeneratedSet))


@dataclass(frozen=True)
class Metric:
    """A distance between two models, small for a copy.

    Attributes:
        name: How the user chooses it, and its key in reports.
        needs: What must be known of the suspect: an :class:`Access`.
        on: The cases that it is taken over: ``clean`` (the seeds), ``adversarial``, ``corners`` or ``mistakes``;
            ``cases``, all of them; or ``weights``, whose sketches are compared, or ``ancestry``, if the victim's known
            ancestor and other models that come from it are taken into account.
        distance: ``distance(victim, suspect) -> float`` of two :class:`Answers`: pure numpy, at least 0, and 0 for a
            model and itself. It raises :class:`~deepjudge_core.errors.IncomparableError` where it would mean nothing.
        alpha: Default share of the lower bound that makes the threshold, above 0 and at most 1 (paper, section IV-D).
        upper: Greatest possible value, or infinity; scales charts.
        default: Whether it is used if no metrics are named; metrics of other installed distributions never are. One
            more metric is one more vote: False keeps it out of verdicts that did not ask for it.
        title: What the name is short for, such as "robustness distance"; reports show it.
        says: What its value means, and its unit: a clause without a full stop. It can omit that smaller means more
            alike, and the range of values.
        p_value: ``p_value(victim, suspect) -> Chance``: the greatest probability with which a model made independently
            of the victim comes as near, whatever the controls. None if controls have to tell.
        background: ``background(victim, suspect) -> distances``, ``(n,)``: what the value is like of parts that do not
            correspond, such as layers at other places; empty where that is not known. It accuses nobody; without
            controls, reports put the value next to it. None if there is no such thing.
        reads: Which outputs of layers it goes by, if it needs layers: ``activations``, or ``recovered`` (see
            :class:`Answers`), which are there whatever the widths of the suspect's layers.
    """

    name: str
    needs: Access
    on: Subject
    distance: Callable[[Answers, Answers], float]
    alpha: float
    upper: float = float("inf")
    default: bool = True
    title: str = ""
    says: str = ""
    p_value: Callable[[Answers, Answers], Chance] | None = None
    background: Callable[[Answers, Answers], Array] | None = None
    reads: Reads = "activations"

    subjects: ClassVar[tuple[str, ...]] = (*get_args(CaseSet), ALL_CASES, *_OF_WEIGHTS)

    def __post_init__(self) -> None:
        if self.name == ALL_METRICS:
            raise PluginError(f"a metric is named {self.name!r}, which means every metric; choose another name")
        expect_one_of(self.name, "on", self.on, self.subjects)
        expect_one_of(self.name, "reads", self.reads, get_args(Reads))
        if not 0 < self.alpha <= 1:
            raise PluginError(f"{self.name}: expected 0 < alpha <= 1, found {self.alpha!r}")
        if not self.upper > 0:
            raise PluginError(f"{self.name}: expected upper > 0, found {self.upper!r}")

    @property
    def of_weights(self) -> bool:
        """Whether it compares weights that are never run."""
        return self.on in _OF_WEIGHTS

    @property
    def group(self) -> Group:
        """The setting that the metric belongs to."""
        if self.on == "keys":
            return "marks"
        if Access.WEIGHTS in self.needs:
            return "weights"
        return "white-box" if Access.LAYERS in self.needs else "black-box"


@dataclass(frozen=True)
class Rule:
    """Turns the evidence of a group of metrics into a decision.

    Attributes:
        name: How the user chooses it.
        judge: ``judge(evidence, **options) -> Judgement`` for a mapping of metric name to :class:`Evidence`, never
            empty; options are its keyword-only parameters with defaults.
        needs_controls: Whether it says nothing without controls. If so, it is not given metrics that were measured on
            fewer than 3 of them; otherwise all that were measured of the suspect.
    """

    name: str
    judge: Callable[..., Judgement]
    needs_controls: bool = True


def expect_one_of(owner: str, attribute: str, value: str, expected: tuple[str, ...]) -> None:
    """Refuse an attribute of a component with an unknown value.

    Raises:
        PluginError: Naming them.
    """
    if value not in expected:
        raise PluginError(f"{owner}: expected {attribute} to be one of {', '.join(expected)}, found {value!r}")
