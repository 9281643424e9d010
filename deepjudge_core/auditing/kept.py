"""Answers that are kept in a folder, so that an interrupted run does not ask again who has answered."""

import contextlib
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepjudge_core import progress
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import Answer, KnownAnswers, ModelFile, Subject
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.opening import digested
from deepjudge_core.errors import DeepJudgeError
from deepjudge_core.suites.observation import Observation, load_observation, save_observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.version import VERSION

_MOST_CODE = 1000  # Python files beside a function of the user's own


def recalled(subjects: Sequence[Subject], suite: Suite, session: Session) -> list[Subject]:
    """The subjects, those that answered before as what they answered; the others keep what they are going to answer.

    Answers are those to the same suite, of a model with the same bytes, opened and asked in the same way by the same
    version, in a process of its own or not. Failures are not kept. A folder that cannot be written to is a warning.

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
    return found


def _recalled(subject: ModelFile, suite: Suite, session: Session, folder: Path) -> Subject:
    try:
        path, adapters = Path(subject.path), session.registry.adapters
        if path.is_symlink() or any(inner.is_symlink() for inner in path.rglob("*")):
            return subject  # what is refused as a link is not recalled as a file with the same bytes
        adapter = adapters.of_file(path, subject.name)
        digest = digested(path, adapter).digest
    except (DeepJudgeError, OSError):  # which is said when it is asked
        return subject
    key = {
        "deepjudge": VERSION,
        "suite": suite.digest,
        "model": digest,
        "adapter": [adapter.name, adapters.provider(adapter.name)],
        "query": dataclasses.asdict(subject.query),
        "options": subject.options,
        "code": _code(subject.options.get("arch")),
        "sandbox": session.sandbox is not None,
    }
    text = json.dumps(key, sort_keys=True, default=str)
    place = folder / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"
    with contextlib.suppress(DeepJudgeError):  # a damaged one is written anew
        observation = load_observation(place)
        if observation.suite == suite.digest:
            # The same bytes may have been asked under another name.
            observation = replace(observation, model=replace(observation.model, name=subject.name))
            return KnownAnswers(observation, query=subject.query, stratum=subject.stratum)
    return _Kept(
        subject.path,
        subject.options,
        query=subject.query,
        stratum=subject.stratum,
        place=place,
        digest=digest,
        adapter=adapter,
    )


def _code(arch: Any) -> dict[str, str]:
    # The user's own code that makes a network: the Python files of its folder.
    if arch is None:
        return {}
    module = str(arch).rpartition(":")[0]
    path = Path(module if module.endswith(".py") else f"{module.replace('.', '/')}.py")
    with contextlib.suppress(OSError):
        files = sorted(path.parent.glob("*.py"))[:_MOST_CODE]
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return {}


@dataclass(frozen=True)
class _Kept(ModelFile):
    # A file whose answers are kept, if it is then still what it was.
    place: Path = Path()
    digest: str = ""
    adapter: Adapter | None = None

    @contextlib.contextmanager
    def answering(self, suite: Suite, session: Session) -> Iterator[Answer]:
        """See :class:`Subject`."""
        with super().answering(suite, session) as answer:
            yield lambda: self._keep(answer())

    def _keep(self, observation: Observation) -> Observation:
        try:
            if self._is_unchanged(observation):
                save_observation(self.place, observation)
        except (DeepJudgeError, OSError) as error:
            warnings.warn(f"answers are not stored: {error}", stacklevel=2)
        return observation

    def _is_unchanged(self, observation: Observation) -> bool:
        # Adapters may have digests of their own, such as those of weights alone.
        if observation.model.digest == self.digest:
            return True
        return self.adapter is not None and digested(Path(self.path), self.adapter).digest == self.digest
