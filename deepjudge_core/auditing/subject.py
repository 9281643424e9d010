"""Models that are looked at: what each is, and how it is opened and asked."""

import abc
import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, cast

from deepjudge_core import progress
from deepjudge_core.auditing.session import Session
from deepjudge_core.components.opening import open_model, placed, resolve
from deepjudge_core.components.strata import Stratum
from deepjudge_core.components.weights import open_weights
from deepjudge_core.errors import DeepJudgeError, ModelError, UsageError, one_line
from deepjudge_core.files import storage
from deepjudge_core.models.device import wants_gpu
from deepjudge_core.models.gateway import Gateway, Reduction
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Model
from deepjudge_core.models.sketcher import Sketcher
from deepjudge_core.naming import option
from deepjudge_core.observing.gateways import as_described, reached
from deepjudge_core.observing.keys import with_matrices, without_matrices
from deepjudge_core.observing.observe import check_asking, labeller, observe
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.observing.weights import observe_weights, with_weights
from deepjudge_core.sandbox.remote import begin_isolated, open_isolated
from deepjudge_core.sandbox.weights import open_weights_isolated
from deepjudge_core.suites.observation import Observation, load_observation
from deepjudge_core.suites.suite import Suite, check_suite
from deepjudge_core.text import counted, is_url
from deepjudge_core.types import Array
from deepjudge_core.weights.values import WeightPlan

Answer = Callable[[], Observation]
"""Lets a model answer a suite."""
Label = Callable[[int], int]
"""Asks a model one case of a suite, by its row, for the label: a class of the victim's."""


class Labelling(NamedTuple):
    """What asks a model case by case.

    Attributes:
        model: What it is.
        label: Asks it one case.
        compared: ``(n,)`` bool, which cases reach it as they are; None for all.
        gateway: What stands between, if it answers elsewhere.
        reduction: What was kept of the scores of one that answered before.
    """

    model: ModelInfo
    label: Label
    compared: Array | None = None
    gateway: Gateway | None = None
    reduction: Reduction = Reduction()

    @property
    def kept(self) -> Reduction:
        """What is kept of its scores, as far as that is known beforehand."""
        return (self.gateway.stated() or Reduction()) if self.gateway else self.reduction


@dataclass(frozen=True)
class Subject(abc.ABC):
    """A model that is looked at. It has a base of its own, so that any other object can be told from one.

    Attributes:
        query: How it is asked; of a victim only layout and preprocessing count. What is stored was asked before.
        stratum: Of a control, what it has in common with the victim; None where that is not known, or is looked up in
            the ``zoo.json`` beside it.
    """

    _: KW_ONLY
    query: QuerySettings = field(default_factory=QuerySettings)
    stratum: Stratum | None = None

    stored: ClassVar[bool] = False
    """Whether it answered before, and only what is stored of that is read."""
    claimed: ClassVar[bool] = False
    """Whether somebody else stored that, or may have: then the report says that it is a claim."""

    @staticmethod
    def of(
        source: Any,
        *,
        query: QuerySettings | None = None,
        options: Mapping[str, Any] | None = None,
        stratum: Stratum | None = None,
    ) -> "Subject":
        """The subject that something is; one that is a subject already is returned as it is.

        Args:
            source: The path of a model or of a stored observation, the URL of a model behind an API, a live model, or
                an observation.
            query: How it is asked.
            options: Of the adapter that opens it, such as ``arch`` of a file of weights.
            stratum: Of a control, what it has in common with the victim.
        """
        query, options = query or QuerySettings(), options or {}
        if isinstance(source, Subject):
            return source
        if isinstance(source, Observation):
            return KnownAnswers(source, query=query, stratum=stratum)
        if not isinstance(source, str | Path):
            return LiveModel(source, options, query=query, stratum=stratum)
        if not is_url(source) and storage.is_own(Path(source)):
            return ObservationFile(source, query=query, stratum=stratum)
        return ModelFile(source, options, query=query, stratum=stratum)

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the user calls it."""

    @abc.abstractmethod
    def opened(
        self, expected: InputSpec, session: Session, *, gradients: bool = False
    ) -> contextlib.AbstractContextManager[Model]:
        """The model, which is going to be given such inputs, for as long as the context is open.

        Args:
            expected: The inputs.
            session: Where the adapters are, and how a file is confined; live models are in this process.
            gradients: Whether it is going to be asked for gradients, as a victim is.

        Raises:
            DeepJudgeError: When it cannot be opened.
        """

    @abc.abstractmethod
    def sketching(
        self, session: Session, expected: InputSpec | None = None
    ) -> contextlib.AbstractContextManager[Sketcher]:
        """What reads its weights and runs nothing, for as long as the context is open.

        Args:
            session: Where the adapters are, and how a file is confined.
            expected: The inputs that it takes, if they are known: a live model's graph is made for them.

        Raises:
            DeepJudgeError: When they cannot be read; a :class:`~deepjudge_core.errors.ModelError` of the code
                ``no-weights`` for a format of which they never can.
        """

    @property
    def again(self) -> Answer | None:
        """What reads its answers again, and finds the same; None where they have to be held."""
        return None

    @abc.abstractmethod
    def answering(self, suite: Suite, session: Session) -> contextlib.AbstractContextManager[Answer]:
        """Start the process that is going to open it, where it gets one; what the context gives lets it answer.

        What that raises is a :class:`~deepjudge_core.errors.DeepJudgeError`, also for what went wrong before.
        """

    @abc.abstractmethod
    def labelling(self, suite: Suite, session: Session) -> contextlib.AbstractContextManager["Labelling"]:
        """What it is, and what asks it one case of a suite. What is stored is read case by case.

        Raises:
            DeepJudgeError: When it cannot be opened, asked or read.
        """

    def check(self, suite: Suite) -> None:
        """Refuse what does not fit the suite, before any model is run.

        Raises:
            UsageError: Naming the model.
        """
        try:
            if self.query.weights and suite.weights is None:
                raise UsageError(_no_plan(), code="conflict")
            check_asking(self.query, suite)
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}", code=error.code) from None


@dataclass(frozen=True)
class _Openable(Subject):
    # What a model is opened by, in this process or in another.

    @contextlib.contextmanager
    def answering(self, suite: Suite, session: Session) -> Iterator[Answer]:
        """See :class:`Subject`."""
        yield lambda: self._answer(suite, session)

    @contextlib.contextmanager
    def labelling(self, suite: Suite, session: Session) -> Iterator["Labelling"]:
        """See :class:`Subject`."""
        with self.opened(suite.input, session) as model:
            gateway, compared = model.gateway, None
            if gateway is not None:
                compared = reached(gateway, model, suite, as_described(gateway, self.query))
            label = labeller(model, suite, self.query)
            yield Labelling(ModelInfo.of(model, self.query.layout), label, compared, gateway)

    def _is_run(self, suite: Suite) -> bool:
        return suite.has_cases and not self.query.weights

    def _answer(self, suite: Suite, session: Session) -> Observation:
        if not self._is_run(suite):
            return self._with_weights(None, suite, session)
        with self.opened(suite.input, session) as model:
            observation = observe(model, suite, self.query)
        return self._with_weights(observation, suite, session)

    def _with_weights(self, observation: Observation | None, suite: Suite, session: Session) -> Observation:
        # What it answered if it was run, with a sketch of its weights if the suite asks for one.
        plan = suite.weights
        if plan is None and observation is None:
            raise UsageError(f"{self.name}: {_no_plan()}", code="conflict")
        if plan is None and not any(key.matrices for key in suite.keys):
            return cast(Observation, observation)
        try:
            with self.sketching(session, observation.model.input if observation else None) as sketcher:
                if plan is not None:
                    observation = self._sketched(observation, sketcher, suite, plan)
                return with_matrices(cast(Observation, observation), sketcher, suite)
        except ModelError as error:
            if observation is None:
                raise
            said = str(error).removeprefix(f"{self.name}: ")
            told = replace(observation, unsketched=said) if plan else observation
            return without_matrices(told, error, suite)

    def _sketched(
        self, observation: Observation | None, sketcher: Sketcher, suite: Suite, plan: WeightPlan
    ) -> Observation:
        if observation is None:
            return observe_weights(sketcher, suite, plan)
        try:
            return with_weights(observation, sketcher, plan)
        except ModelError as error:
            return replace(observation, unsketched=str(error).removeprefix(f"{self.name}: "))


@dataclass(frozen=True)
class LiveModel(_Openable):
    """A model that is in this process already.

    Attributes:
        model: What an installed adapter accepts, or a :class:`~deepjudge_core.models.model.Model`.
        options: Of the adapter.
    """

    model: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As its user says, the model's or function's own, or its class."""
        said = self.options.get("name") or getattr(self.model, "name", None) or getattr(self.model, "__name__", None)
        return str(said or type(self.model).__name__)

    @contextlib.contextmanager
    def opened(self, expected: InputSpec, session: Session, *, gradients: bool = False) -> Iterator[Model]:
        """See :class:`Subject`."""
        yield open_model(self.model, registry=session.registry, expected=expected, **self.options)

    @contextlib.contextmanager
    def sketching(self, session: Session, expected: InputSpec | None = None) -> Iterator[Sketcher]:
        """See :class:`Subject`."""
        shape = expected.shape if expected else ()
        known = {"input_shape": shape} if shape and None not in shape else {}
        with open_weights(self.model, registry=session.registry, **{**known, **self.options}) as sketcher:
            yield sketcher


@dataclass(frozen=True)
class ModelFile(_Openable):
    """A model in a file or a folder, or behind an API that a file describes, or a URL names.

    Attributes:
        path: Where.
        options: Of the adapter that opens it, such as ``arch`` of a file of weights; and ``device``, if it is to run
            elsewhere than other files of a session.
    """

    path: str | Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    @contextlib.contextmanager
    def opened(self, expected: InputSpec, session: Session, *, gradients: bool = False) -> Iterator[Model]:
        """See :class:`Subject`."""
        if session.sandbox is None or self._is_remote(session):
            model = open_model(self.path, registry=session.registry, expected=expected, **self._opening(session))
            with contextlib.closing(model.gateway) if model.gateway else contextlib.nullcontext():
                yield model
            return
        with open_isolated(
            self.path,
            registry=session.registry,
            sandbox=session.sandbox,
            expected=expected,
            gradients=gradients,
            others=session.models,
            **self._opening(session),
        ) as model:
            yield model

    @contextlib.contextmanager
    def answering(self, suite: Suite, session: Session) -> Iterator[Answer]:
        """See :class:`Subject`."""
        plan = suite.weights
        with contextlib.ExitStack() as stack:
            if session.sandbox is None or self._is_remote(session) or not (self._is_run(suite) or plan):
                yield lambda: self._answer(suite, session)
                return
            answer: Answer
            try:
                if plan and not self._is_run(suite):
                    sketcher = stack.enter_context(self.sketching(session))
                    answer = partial(self._read, sketcher, suite, plan)
                else:
                    begun = begin_isolated(
                        self.path,
                        session.registry.adapters,
                        sandbox=session.sandbox,
                        expected=suite.input,
                        gradients=False,
                        others=session.models,
                        **self._opening(session),
                    )
                    answer = partial(self._ask, stack.enter_context(begun), suite, session)
            except DeepJudgeError as error:
                answer = partial(_fail, error)
            yield answer  # what fails in there is no error of this context

    def _opening(self, session: Session) -> dict[str, Any]:
        return {"device": self.device_in(session), **self.options}

    def device_in(self, session: Session) -> str:
        """What it is to run on: as its options say, or else the session."""
        return str(self.options.get("device", session.device))

    def _is_remote(self, session: Session) -> bool:
        return session.registry.adapters.is_remote(self.path)

    @staticmethod
    def _read(sketcher: Sketcher, suite: Suite, plan: WeightPlan) -> Observation:
        return with_matrices(observe_weights(sketcher, suite, plan), sketcher, suite)

    def _ask(self, opened: Callable[[], Model], suite: Suite, session: Session) -> Observation:
        return self._with_weights(observe(opened(), suite, self.query), suite, session)

    @contextlib.contextmanager
    def sketching(self, session: Session, expected: InputSpec | None = None) -> Iterator[Sketcher]:
        """See :class:`Subject`."""
        if session.sandbox is None or self._is_remote(session):
            with open_weights(self.path, registry=session.registry, **self.options) as sketcher:
                yield sketcher
            return
        with open_weights_isolated(
            self.path, registry=session.registry, sandbox=session.sandbox, others=session.models, **self.options
        ) as remote:
            yield remote


@dataclass(frozen=True)
class Stored(Subject):
    """What answered before."""

    stored = True

    @abc.abstractmethod
    def read(self) -> Observation:
        """What it answered.

        Raises:
            FileFormatError: When it cannot be read.
        """

    @contextlib.contextmanager
    def opened(self, expected: InputSpec, session: Session, *, gradients: bool = False) -> Iterator[Model]:
        """See :class:`Subject`."""
        raise UsageError(f"{self.name}: expected a model, found stored answers")
        yield

    @contextlib.contextmanager
    def sketching(self, session: Session, expected: InputSpec | None = None) -> Iterator[Sketcher]:
        """See :class:`Subject`."""
        raise UsageError(f"{self.name}: expected a model, found stored answers")
        yield

    @contextlib.contextmanager
    def answering(self, suite: Suite, session: Session) -> Iterator[Answer]:
        """See :class:`Subject`."""
        yield self.read

    @contextlib.contextmanager
    def labelling(self, suite: Suite, session: Session) -> Iterator["Labelling"]:
        """See :class:`Subject`."""
        observation = self.read()
        check_suite(suite, observation)
        if observation.probabilities is None:
            raise ModelError(f"{self.name}: {observation.unmapped or 'the probabilities were not observed'}")
        labels, exchange = observation.probabilities.argmax(axis=1), observation.exchange
        shown = (exchange.compared, exchange.reduction) if exchange else (None, Reduction())
        yield Labelling(observation.model, lambda row: int(labels[row]), shown[0], None, shown[1])


@dataclass(frozen=True)
class ObservationFile(Stored):
    """What a model answered, in a file.

    Attributes:
        path: Where.
    """

    path: str | Path

    claimed: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    def read(self) -> Observation:
        """See the base."""
        return load_observation(Path(self.path))

    def as_suspect(self, session: Session) -> "ObservationFile":
        """The same, but that it fails if nobody said that suspects may be stored observations.

        Whoever knows the digest of a suite can write answers to it, with an invented digest and isolation, under the
        name of a model.
        """
        name = option("QuerySettings.stored", True)
        if not self.query.stored:
            why = f"expected a model, found stored answers; {name} accepts them as the claim that they are"
        elif session.sandbox is not None and session.sandbox.required:
            why = f"expected a model, because {option('Sandbox.required', True)} refuses what it cannot confine; found "
            why += "stored answers, whose isolation is their maker's claim"
        else:
            return self
        return _Refused(self.path, why, query=self.query, stratum=self.stratum)


@dataclass(frozen=True)
class _Refused(ObservationFile):
    # What is not read, and why.
    why: str

    def read(self) -> Observation:
        raise ModelError(f"{self.name}: {self.why}", code="stored-answers")


@dataclass(frozen=True)
class KnownAnswers(Stored):
    """What a model answered, in memory.

    Attributes:
        observation: Its answers.
    """

    observation: Observation

    claimed: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The model's."""
        return self.observation.model.name

    def read(self) -> Observation:
        """See the base."""
        return self.observation


def check_device(subjects: Iterable[Subject], session: Session) -> None:
    """Refuse a GPU that the models of some files cannot run on, before any of them is opened.

    Raises:
        DeepJudgeError: When there is no such GPU for one of them.
    """
    adapters, checked = session.registry.adapters, set[tuple[str, str]]()
    for subject in subjects:
        if not isinstance(subject, ModelFile) or subject.query.weights or not wants_gpu(subject.device_in(session)):
            continue
        try:
            _, label, adapter = resolve(subject.path, adapters)
        except DeepJudgeError:  # which is said when it is opened
            continue
        device = subject.device_in(session)
        if adapter is not None and (adapter.name, device) not in checked:
            checked.add((adapter.name, device))
            placed(adapter, device, label)


def answer_each(subjects: Iterable[Subject], suite: Suite, session: Session) -> Generator[Answer, None, None]:
    """For each subject in turn what is called to let it answer.

    The process of the next one is started before: it imports its framework while this one answers. Whatever is raised
    while one is taken in, opened or asked is its own failure, and said in its turn: the others are not lost by it.
    """
    # Of the one whose turn it is, and of the next.
    turn, ahead = contextlib.ExitStack(), contextlib.ExitStack()
    waiting: Answer | None = None
    try:
        for subject in subjects:
            answer: Answer
            try:
                with failing(subject.name):
                    subject.check(suite)
                    answer = partial(_answered, subject.name, ahead.enter_context(subject.answering(suite, session)))
            except DeepJudgeError as error:
                answer = partial(_fail, error)
            if waiting is not None:
                yield waiting
                turn.close()
            turn, ahead, waiting = ahead, contextlib.ExitStack(), answer
        if waiting is not None:
            yield waiting
    finally:
        turn.close()
        ahead.close()


@contextlib.contextmanager
def turns(doing: str, subjects: Sequence[Subject], what: str) -> Iterator[Callable[[Subject, str], None]]:
    """Show that each subject has its turn; what it yields says of one what came of it.

    Those that answered before take no time: where others are asked, these alone are counted.

    Args:
        doing: Such as "asking".
        subjects: Whose turn it is going to be.
        what: What each is.
    """
    stored = sum(subject.stored for subject in subjects)
    asked = len(subjects) - stored
    others = f" ({counted(stored, 'other')} answered before)" if stored else ""
    said = f"{doing} {counted(asked, what)}{others}" if asked else f"reading the answers of {counted(stored, what)}"

    with progress.task(said, asked or stored) as advance:

        def turn(subject: Subject, outcome: str) -> None:
            counts = not (asked and subject.stored)
            # What takes no time is worth no line of its own.
            advance(int(counts), progress.Finished(f"{subject.name}: {outcome}") if asked else "")

        yield turn


@contextlib.contextmanager
def failing(name: str) -> Iterator[None]:
    """The one boundary of what is done with a stranger's model: an error that nobody foresaw is that model's failure.

    Where the memory is used up, or somebody ends the audit, no other model could be asked either.

    Raises:
        DeepJudgeError: For every exception within, but ``MemoryError`` and what is no ``Exception``.
    """
    try:
        yield
    except (DeepJudgeError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(f"{name}: cannot be used, because of an unexpected error: {one_line(error)}") from error


def _answered(name: str, answer: Answer) -> Observation:
    with failing(name):
        return answer()


def _no_plan() -> str:
    made = option("SuiteSettings.weights", True)
    return f"expected a suite that compares weights, found one of cases alone; make one with {made}"


def _fail(error: DeepJudgeError) -> NoReturn:
    raise error
