"""From the suspects that a user names to tasks: what each is, is looked at once, and only when it is its turn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deepjudge_core.auditing.identity import Identity, identify
from deepjudge_core.auditing.keys import UnknownError
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.errors import DeepJudgeError
from deepjudge_core.files.absent import NO_SUCH
from deepjudge_core.files.digests import file_key
from deepjudge_core.files.fetching import fetch, is_address
from deepjudge_core.fleets.store import Member, Store
from deepjudge_core.fleets.work import Task
from deepjudge_core.models.code import OwnCode
from deepjudge_core.text import clean

FETCHED = "fetched"
"""The folder of a store in which models are kept that were fetched from addresses."""


@dataclass(frozen=True)
class _Known:
    # What is known of a suspect, whatever it is asked.
    identity: Identity | None
    settings: str | None = None
    reason: str | None = None
    code: str | None = None
    path: str = ""  # of its file


class Fleet:
    """The suspects that a user named, and what each turns out to be.

    Attributes:
        suspects: In the order of their names.
    """

    def __init__(self, suspects: Sequence[Subject], session: Session) -> None:
        """Name them; no file is read yet."""
        self.suspects = tuple(suspects)
        files = (file_key(Path(one.path)) for one in self.suspects if isinstance(one, ModelFile))
        self._session = replace(session, models=session.models | frozenset(filter(None, files)))
        self._known: dict[int, _Known] = {}
        counts: dict[str, int] = {}
        self._places = list[tuple[str, int]]()
        for suspect in self.suspects:
            source = _source(suspect)
            self._places.append((source, counts.get(source, 0)))
            counts[source] = counts.get(source, 0) + 1

    def tasks(self, suite: str, store: Store) -> Iterator[tuple[Member, Task | None]]:
        """Each suspect in turn, entered in the store, with its task against a suite; None where it cannot be asked.

        Args:
            suite: Digest of the suite.
            store: Where they are entered.
        """
        for number, suspect in enumerate(self.suspects):
            known = self._known_of(number, store.folder / FETCHED)
            source, place = self._places[number]
            identity = known.identity
            digest = identity.digest if identity else None
            member = Member(suite, source, place, suspect.name, digest, known.settings, known.reason, known.code)
            store.enter([member])
            yield member, self._task(suite, suspect, source, known)

    def _known_of(self, number: int, folder: Path) -> _Known:
        if number not in self._known:
            self._known[number] = self._look_at(self.suspects[number], folder)
        return self._known[number]

    def _look_at(self, suspect: Subject, folder: Path) -> _Known:
        if not isinstance(suspect, ModelFile):
            reason = "expected a model, found stored answers; 'deepjudge judge' judges those"
            return _Known(None, reason=reason, code="wrong-usage")
        try:
            path = str(suspect.path)
            here = replace(suspect, path=fetch(path, folder)) if is_address(path) else suspect
            identity = identify(here, self._session)
            return _Known(identity, identity.settings_digest, path=str(Path(here.path).absolute()))
        except DeepJudgeError as error:
            reason = str(error).removeprefix(f"{clean(suspect.name)}: ")
            return _Known(None, reason=reason, code=error.code)
        except OSError as error:
            return _Known(None, reason=f"cannot be read: {error.strerror or error}", code="cannot-read")
        except UnknownError as error:
            missing = NO_SUCH if not Path(suspect.path).exists() else f"its answers depend on {error}"
            return _Known(None, reason=missing, code="cannot-read")

    def _task(self, suite: str, suspect: Subject, source: str, known: _Known) -> Task | None:
        if known.identity is None or known.settings is None or not isinstance(suspect, ModelFile):
            return None
        options = dict(suspect.options)
        if isinstance(options.get("arch"), str):  # workers may be in another folder
            options["arch"] = str(OwnCode.parse(options["arch"]).absolute())
        if options.get("base"):
            options["base"] = str(Path(options["base"]).absolute())
        return Task(
            *(suite, known.identity.digest, known.settings, known.path, suspect.name),
            options=options,
            query=suspect.query,
            sandbox=self._session.sandbox,
            device=self._session.device,
            apart=known.identity.apart,
            address=source if is_address(source) else None,
        )


def _source(suspect: Subject) -> str:
    path = getattr(suspect, "path", None)
    if is_address(path):
        return str(path)
    return suspect.name if path is None else str(Path(path).absolute())
