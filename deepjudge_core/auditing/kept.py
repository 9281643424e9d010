"""Suites and answers that are kept in a folder, so that nobody is asked again who has answered."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from deepjudge_core import progress
from deepjudge_core.auditing.identity import digest_of, identify
from deepjudge_core.auditing.keys import UnknownError, fingerprint
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import Answer, KnownAnswers, ModelFile, Subject
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.opening import digested
from deepjudge_core.errors import DeepJudgeError, FileFormatError
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.suites.choice import GeneratorChoice
from deepjudge_core.suites.inputs import Offered
from deepjudge_core.suites.observation import Observation, load_observation, save_observation
from deepjudge_core.suites.settings import SuiteSettings
from deepjudge_core.suites.suite import GeneratorRecord, Suite, load_suite, save_suite
from deepjudge_core.text import clean

_T = TypeVar("_T", Suite, Observation)
_SHORT = 32  # digits of a digest in a name


def recalled(subjects: Sequence[Subject], suite: Suite, session: Session) -> list[Subject]:
    """The subjects, those that answered before as what they answered; the others keep what they are going to answer.

    Answers are those to the same suite, of a model with the same bytes, opened and asked in the same way by the same
    versions and code, in a process of its own or not. Failures are not kept. A folder that cannot be written to is a
    warning.

    Args:
        subjects: Who is asked; only files are kept.
        suite: What they are asked.
        session: Where the answers are kept, if anywhere.
    """
    if session.kept is None:
        return list(subjects)
    found = list[Subject]()
    with progress.task("loading stored answers", len(subjects)) as advance:
        for subject in subjects:
            found.append(_recalled(subject, suite, session, session.kept) if type(subject) is ModelFile else subject)
            advance(1)
    _tell_if_outdated(found, suite, session.kept)
    return found


def _tell_if_outdated(subjects: Sequence[Subject], suite: Suite, folder: Path) -> None:
    # Who interrupted an audit, and updated something, would wonder why it begins again.
    asked = {subject.digest for subject in subjects if isinstance(subject, _Kept)}
    if any(isinstance(subject, KnownAnswers) for subject in subjects):
        return
    for place in folder.glob("*-*.safetensors") if asked else ():
        with contextlib.suppress(DeepJudgeError):
            stored = load_observation(place)
            if stored.suite == suite.digest and stored.model.digest in asked:
                warnings.warn(
                    f"{folder}: the answers stored here are not used, since the options, the "
                    "environment, deepjudge or an installed package changed; the models are asked again",
                    stacklevel=3,
                )
                return


def _recalled(subject: ModelFile, suite: Suite, session: Session, folder: Path) -> Subject:
    try:
        model = identify(subject, session)
        key = fingerprint("answers", suite.digest, model.digest, model.settings)
    except (DeepJudgeError, OSError, UnknownError):  # what is wrong is said when it is asked
        return subject
    for found in _read(folder, key, partial(_answers_of, model.digest, session)):
        if found.suite == suite.digest and _is_confined(found, session):
            # The same bytes may have been asked under another name.
            observation = replace(found, model=replace(found.model, name=subject.name))
            return KnownAnswers(observation, query=subject.query, stratum=subject.stratum)
    return _Kept(
        subject.path,
        subject.options,
        query=subject.query,
        stratum=subject.stratum,
        folder=folder,
        key=key,
        digest=model.digest,
        adapter=model.adapter,
    )


def recalled_suite(
    victim: Subject, inputs: Offered | None, settings: SuiteSettings, session: Session, make: Callable[[], Suite]
) -> Suite:
    """The suite that was made before of the same victim and inputs in the same way, or else one that is made and kept.

    Args:
        victim: The owner's model; only that of a file is kept.
        inputs: What seeds are selected from.
        settings: How the suite is made.
        session: Where suites are kept, if anywhere, and who hears that one was.
        make: Makes it.
    """
    folder = session.kept
    if folder is None or type(victim) is not ModelFile:
        return make()

    def key() -> tuple[str, str]:
        model = identify(victim, session)
        choice = GeneratorChoice.of(settings, session.registry.generators)
        generators = [(one.name, one.options, one.provider) for one in (*choice.generators, *choice.answering)]
        optioned = choice.optioned if choice.answering else ()
        how = (settings.n, settings.order, settings.layers, settings.seed, settings.force, settings.pictures)
        ancestor = settings.ancestor and digest_of(settings.ancestor, settings.ancestor_base, session)
        weights = (settings.weights, settings.sketch, ancestor)
        keys = tuple(map(Path, settings.keys))
        asking = model.digest, model.settings
        return fingerprint("suite", asking, victim.name, inputs, how, weights, keys, generators, optioned), model.digest

    try:
        before, digest = key()
    except (DeepJudgeError, OSError):  # which is said when it is opened
        return make()
    except UnknownError as error:
        warnings.warn(f"the suite is not kept for the next run, since it depends on {error}", stacklevel=2)
        return make()
    for suite in _read(folder, before, partial(_suite_of, digest, session)):
        session.listener.on_suite_reused(suite)
        return _as_made(suite, GeneratorChoice.of(settings, session.registry.generators))
    suite = make()
    with contextlib.suppress(DeepJudgeError, OSError, UnknownError):
        if key() == (before, digest):  # nothing was changed meanwhile
            _write(lambda: save_suite(_place(folder, before, suite.digest), suite))
    return suite


def _as_made(suite: Suite, choice: GeneratorChoice) -> Suite:
    # A file has the options of a generator by their names; who reads them has them as the generator declares them.
    declared = {one.name: one.options for one in (*choice.generators, *choice.answering)}

    def ordered(record: GeneratorRecord) -> GeneratorRecord:
        known = {name: record.options[name] for name in declared.get(record.name, ()) if name in record.options}
        return msgspec.structs.replace(record, options=known | dict(record.options))

    return replace(suite, generators=tuple(map(ordered, suite.generators)))


def _answers_of(digest: str, session: Session, place: Path) -> Observation:
    found = load_observation(place)
    _check_model(found.model, digest, session, place)
    return found


def _suite_of(digest: str, session: Session, place: Path) -> Suite:
    found = load_suite(place)
    _check_model(found.victim.model, digest, session, place)
    return found


def _check_model(model: ModelInfo, digest: str, session: Session, place: Path) -> None:
    # A file may have been given another one's name. Without a sandbox, adapters have digests of their own.
    if session.sandbox is not None and model.digest != digest:
        raise FileFormatError(f"{place}: expected the model {digest}, found {clean(model.digest)}")


def _is_confined(found: Observation, session: Session) -> bool:
    # As it would have to be if it was asked now.
    required = session.sandbox is not None and session.sandbox.required
    return not required or found.model.isolation is Isolation.FULL


def _place(folder: Path, key: str, digest: str) -> Path:
    # The name says what is in it, so that another file is not taken for it.
    return folder / f"{key[:_SHORT]}-{digest[:_SHORT]}.safetensors"


def _read(folder: Path, key: str, load: Callable[[Path], _T]) -> Iterator[_T]:
    for place in sorted(folder.glob(f"{key[:_SHORT]}-*.safetensors")):
        try:
            value = load(place)
            if _place(folder, key, value.digest) != place:
                raise FileFormatError(f"{place}: expected what its name says, found something else")
        except DeepJudgeError as error:
            warnings.warn(f"{error}; it is made again", stacklevel=2)
            with contextlib.suppress(OSError):
                place.unlink()
        else:
            with contextlib.suppress(OSError):
                os.utime(place)  # so that it is seen to be of use
            yield value


def _write(write: Callable[[], None]) -> None:
    try:
        write()
    except (DeepJudgeError, OSError) as error:
        warnings.warn(f"nothing is kept for the next run: {error}", stacklevel=2)


def forget(folder: Path, before: float = float("inf")) -> None:
    """Remove what is kept in a folder.

    Args:
        folder: The folder.
        before: Only what was not of use since then, as a time in seconds.
    """
    for place in folder.glob("*-*.safetensors"):
        with contextlib.suppress(OSError):
            if place.stat().st_mtime < before:
                place.unlink()


@dataclass(frozen=True)
class _Kept(ModelFile):
    # A file whose answers are kept, if it is then still what it was.
    folder: Path = Path()
    key: str = ""
    digest: str = ""
    adapter: Adapter | None = None

    @contextlib.contextmanager
    def answering(self, suite: Suite, session: Session) -> Iterator[Answer]:
        """See :class:`Subject`."""
        with super().answering(suite, session) as answer:
            yield lambda: self._keep(answer())

    def _keep(self, observation: Observation) -> Observation:
        with contextlib.suppress(DeepJudgeError, OSError):
            if self._is_unchanged(observation):
                place = _place(self.folder, self.key, observation.digest)
                _write(lambda: save_observation(place, observation))
        return observation

    def _is_unchanged(self, observation: Observation) -> bool:
        # Adapters may have digests of their own, such as those of weights alone.
        if observation.model.digest == self.digest:
            return True
        return self.adapter is not None and digested(Path(self.path), self.adapter).digest == self.digest
