"""A model that is looked at: what it is, and how it is opened and asked."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from deepjudge_core.components.opening import open_model
from deepjudge_core.components.registry import Registry
from deepjudge_core.components.strata import Stratum
from deepjudge_core.errors import DeepJudgeError, ModelError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.model import InputSpec, Model
from deepjudge_core.observing.observe import QuerySettings, check_asking, labeller, observe
from deepjudge_core.sandbox.policy import DEFAULT_SANDBOX, Sandbox
from deepjudge_core.sandbox.remote import begin_isolated, open_isolated
from deepjudge_core.suites.observation import Observation, load_observation
from deepjudge_core.suites.suite import Suite, check_suite


@dataclass(frozen=True)
class Subject:
    """A model, and how it is opened and asked where it does not tell.

    Attributes:
        source: The path of a model or of a stored observation, a live model, or an observation.
        asking: How it is asked; of a victim only the layout counts. What is stored was asked before.
        opening: Options of the adapter that opens it, such as ``output_name`` of an ONNX model.
        stratum: Of a control, what it has in common with the victim; None where that is not known, or is looked up in
            the ``zoo.json`` beside it.
    """

    source: Any
    asking: QuerySettings = field(default_factory=QuerySettings)
    opening: Mapping[str, Any] = field(default_factory=dict)
    stratum: Stratum | None = None

    @classmethod
    def of(cls, given: Any) -> "Subject":
        """What is no subject yet is one that is opened and asked as usual."""
        return given if isinstance(given, Subject) else cls(given)

    @property
    def name(self) -> str:
        """What the user calls it."""
        if isinstance(self.source, str | Path):
            return str(self.source)
        if isinstance(self.source, Observation):
            return self.source.model.name
        return str(getattr(self.source, "name", type(self.source).__name__))

    @property
    def is_stored(self) -> bool:
        """Whether it answered before, and only what is stored of that is read."""
        source = self.source
        return isinstance(source, Observation) or (isinstance(source, str | Path) and storage.is_own(Path(source)))

    @contextlib.contextmanager
    def opened(
        self, expected: InputSpec, registry: Registry, sandbox: Sandbox | None, *, gradients: bool = False
    ) -> Iterator[Model]:
        """The model, which is going to be given such inputs, for as long as the context is open.

        Args:
            expected: The inputs.
            registry: Where the adapters are.
            sandbox: How a file is confined; None to open it in this process, as live models are.
            gradients: Whether it is going to be asked for gradients, as a victim is.

        Raises:
            DeepJudgeError: When it cannot be opened.
        """
        if sandbox is not None and isinstance(self.source, str | Path):
            with open_isolated(
                self.source,
                registry=registry,
                sandbox=sandbox,
                expected=expected,
                gradients=gradients,
                **self.opening,
            ) as model:
                yield model
        else:
            yield open_model(self.source, registry=registry, expected=expected, **self.opening)

    def check(self, suite: Suite) -> None:
        """Refuse what does not fit the suite, before any model is run.

        Raises:
            UsageError: Naming the model.
        """
        try:
            check_asking(self.asking, suite)
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}", code=error.code) from None

    def answer(self, suite: Suite, registry: Registry, sandbox: Sandbox | None = DEFAULT_SANDBOX) -> Observation:
        """What it answers to a suite: what is stored, or what it says when it is opened and asked.

        Raises:
            DeepJudgeError: When it cannot be opened, asked or read.
        """
        with self.begun(suite, registry, sandbox) as answered:
            return answered()

    @contextlib.contextmanager
    def begun(self, suite: Suite, registry: Registry, sandbox: Sandbox | None) -> Iterator[Callable[[], Observation]]:
        """Start the process that is going to open it, where it gets one; what the context gives is called to answer.

        What it raises is that of :meth:`answer`, also for what went wrong before.
        """
        with contextlib.ExitStack() as stack:
            if sandbox is None or self.is_stored or not isinstance(self.source, str | Path):
                yield lambda: self._answer_here(suite, registry)
                return
            expected = suite.victim.model.input
            try:
                opened = stack.enter_context(
                    begin_isolated(
                        self.source,
                        registry=registry,
                        sandbox=sandbox,
                        expected=expected,
                        gradients=False,
                        **self.opening,
                    )
                )
            except DeepJudgeError as error:
                yield partial(_fail, error)
                return
            yield lambda: observe(opened(), suite, self.asking)

    @contextlib.contextmanager
    def labelling(
        self, suite: Suite, registry: Registry, sandbox: Sandbox | None
    ) -> Iterator[tuple[ModelInfo, Callable[[int], int]]]:
        """What it is, and what asks it one case of a suite by its row: the label, a class of the victim's.

        What is stored is read case by case.

        Raises:
            DeepJudgeError: As :meth:`answer` and :func:`~deepjudge_core.observing.observe.labeller`.
        """
        if self.is_stored:
            seen = self._answer_here(suite, registry)
            check_suite(suite, seen)
            if seen.probabilities is None:
                raise ModelError(f"{self.name}: {seen.unmapped or 'no probabilities were observed'}")
            labels = seen.probabilities.argmax(axis=1)
            yield seen.model, lambda row: int(labels[row])
            return
        with self.opened(suite.victim.model.input, registry, sandbox) as model:
            yield ModelInfo.of(model, self.asking.layout), labeller(model, suite, self.asking)

    def _answer_here(self, suite: Suite, registry: Registry) -> Observation:
        if isinstance(self.source, Observation):
            return self.source
        if self.is_stored:
            return load_observation(Path(self.source))
        model = open_model(self.source, registry=registry, expected=suite.victim.model.input, **self.opening)
        return observe(model, suite, self.asking)


def begin_each(
    subjects: Iterable[Subject], suite: Suite, registry: Registry, sandbox: Sandbox | None
) -> Generator[Callable[[], Observation], None, None]:
    """For each subject in turn what is called to let it answer.

    The process of the next one is started before: it imports its framework while this one answers.
    """
    # Of the one whose turn it is, and of the next.
    turn, ahead = contextlib.ExitStack(), contextlib.ExitStack()
    waiting: Callable[[], Observation] | None = None
    try:
        for subject in subjects:
            begun = ahead.enter_context(subject.begun(suite, registry, sandbox))
            if waiting is not None:
                yield waiting
                turn.close()
            turn, ahead, waiting = ahead, contextlib.ExitStack(), begun
        if waiting is not None:
            yield waiting
    finally:
        turn.close()
        ahead.close()


def _fail(error: DeepJudgeError) -> NoReturn:
    raise error
