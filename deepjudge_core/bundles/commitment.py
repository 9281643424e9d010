"""What is going to be judged, by what and how, written down before any suspect is touched."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from msgspec import UNSET, Meta, UnsetType

from deepjudge_core.bundles.register import RunsHead
from deepjudge_core.bundles.signing import Signer, open_envelope, sign
from deepjudge_core.bundles.statement import File, Statement
from deepjudge_core.errors import FileFormatError, MistakesError
from deepjudge_core.files.documents import Document, Json, Part, Positive, Sha256, parse, plain
from deepjudge_core.files.reading import LARGEST_JSON, open_regular, parse_json
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import GroupMode, JudgeSettings
from deepjudge_core.version import VERSION

_NOTHING = "nothing"
_ANY = "a commitment"
_P = TypeVar("_P", bound=Part)
COMMITMENT = "urn:deepjudge:commitment:1"
"""What kind of statement a commitment is."""


class CommitmentError(MistakesError):
    """Something else was asked for than was committed to: a line for each difference."""

    code = "other-than-committed"


class JudgingTerms(Document, frozen=True, kw_only=True):
    """All of :class:`~deepjudge_core.judging.settings.JudgeSettings`, with every metric by name and all options.

    Settings that older versions did not have are left out where they are not used, so that what was committed to
    before there were any still holds.
    """

    metrics: tuple[str, ...]
    rule: str
    rule_options: Json
    groups: GroupMode
    require_layers: bool | UnsetType = UNSET
    fdr: Annotated[float, Meta(gt=0, lt=1)] | UnsetType = UNSET
    sequential: bool | UnsetType = UNSET
    budget: Positive | UnsetType = UNSET

    @property
    def settings(self) -> JudgeSettings:
        """The settings, to judge by them again."""
        return JudgeSettings(**plain(self))


class Terms(Document, frozen=True):
    """What a verdict depends on beside the suspect.

    Attributes:
        deepjudge: Version.
        suite: Digest of the suite.
        calibration: Digest of the calibration; None where there are no controls.
        judging: How suspects are judged.
        components: Who gave the rule and each metric: the distribution and its version.
    """

    deepjudge: str
    suite: str
    calibration: str | None
    judging: JudgingTerms
    components: Mapping[str, str]

    @classmethod
    def of(cls, suite: str, calibration: Calibration | None, judge: Judge) -> "Terms":
        """The terms of judging with what is installed.

        Args:
            suite: Digest of the suite.
            calibration: The controls; none, and a calibration without any, are the same.
            judge: By what suspects are judged.
        """
        terms = JudgingTerms(
            # The keys are those of the suite.
            metrics=tuple(metric.name for metric in judge.metrics if metric.on != "keys"),
            rule=judge.settings.rule,
            rule_options=json.loads(json.dumps(judge.fixed_options)),
            groups=judge.settings.groups,
            require_layers=judge.settings.require_layers or UNSET,
            fdr=judge.settings.fdr or UNSET,
            sequential=judge.settings.sequential or UNSET,
            budget=judge.settings.budget or UNSET,
        )
        controls = calibration.digest if calibration and calibration.controls else None
        return cls(VERSION, suite, controls, terms, judge.providers)

    def differences(self, others: "Terms") -> tuple[str, ...]:
        """A line for each thing in which other terms differ from these."""
        ours, theirs = ({name: json.dumps(value) for name, value in flat(plain(terms))} for terms in (self, others))
        # Who gives a metric that is not measured at all in one of the two is no difference of its own.
        both = ours.keys() & theirs.keys()
        names = [name for name in {**ours, **theirs} if name in both or name[0] != "components"]
        return tuple(
            (f"{'.'.join(name)}: committed to {_shown(ours.get(name))}, found {_shown(theirs.get(name))}")
            for name in names
            if ours.get(name) != theirs.get(name)
        )


class _Predicate(Part, frozen=True):
    terms: Terms
    suspects: tuple[Sha256, ...] | UnsetType = UNSET  # before there were any, and where nobody names them
    runs: RunsHead | UnsetType = UNSET


@dataclass(frozen=True)
class Commitment:
    """A commitment as it stands in a file.

    Attributes:
        terms: What was committed to.
        suspects: SHA-256 of each model that is going to be judged; None where that was not said.
        runs: How many runs of the suite had been registered by then; None where that was not said.
        key: The public key that signed it, in hex; None where nobody did.
        data: The bytes of the file.
    """

    terms: Terms
    suspects: tuple[str, ...] | None
    runs: RunsHead | None
    key: str | None
    data: bytes


def dump_commitment(
    terms: Terms,
    suite: Path,
    calibration: Path | None,
    signer: Signer | None = None,
    *,
    suspects: Iterable[str] = (),
    runs: RunsHead | None = None,
) -> bytes:
    """A commitment, as it stands in a file; equal ones give equal bytes.

    It is an in-toto statement, with a signer in a DSSE envelope.

    Args:
        terms: What is committed to.
        suite: The file of the suite.
        calibration: The file of the calibration; None without.
        signer: Who signs it.
        suspects: SHA-256 of each model that is going to be judged; none to leave that open.
        runs: The register of the suite's runs up to now.

    Raises:
        FileFormatError: When a file cannot be read.
    """
    paths = {"suite.safetensors": suite, "calibration.safetensors": calibration}
    files = tuple(File.of(path, name) for name, path in paths.items() if path is not None)
    predicate = _Predicate(terms, tuple(sorted(set(suspects))) or UNSET, runs or UNSET)
    payload = Statement(COMMITMENT, files, plain(predicate)).dump()
    return payload if signer is None else sign(payload, signer)


def load_commitment(path: Path) -> Commitment:
    """Read a commitment.

    Raises:
        FileFormatError: When it is none, or was changed.
        MissingExtraError: When it is signed, and the library for that is not there.
    """
    predicate, key, data = open_commitment(path, _Predicate, COMMITMENT, _ANY)
    return Commitment(predicate.terms, predicate.suspects or None, predicate.runs or None, key, data)


def open_commitment(path: Path, kind: type[_P], uri: str, what: str) -> tuple[_P, str | None, bytes]:
    """A commitment of any kind: what it says, the key that signed it, if any, and the bytes of its file.

    Args:
        path: The file.
        kind: What its predicate is.
        uri: What says so.
        what: What messages call it.

    Raises:
        FileFormatError: When it is none, or was changed.
        MissingExtraError: When it is signed, and the library for that is not there.
    """
    payload, key, data = _unwrapped(path, what)
    try:
        predicate = parse(kind, Statement.parse(payload, uri).predicate)
    except ValueError as error:
        raise _other(path, what, error) from None
    return predicate, key, data


def uri_of(path: Path) -> Any:
    """What kind of statement the file of a commitment says that it holds; None if it says nothing.

    Raises:
        FileFormatError: When it is no JSON, or was changed after it was signed.
        MissingExtraError: When it is signed, and the library for that is not there.
    """
    statement = parse_json(_unwrapped(path, _ANY)[0])
    return statement.get("predicateType") if isinstance(statement, dict) else None


def _unwrapped(path: Path, what: str) -> tuple[bytes, str | None, bytes]:
    # The statement, the key that signed it, if any, and the bytes of its file.
    with open_regular(path, what, LARGEST_JSON) as file:
        data = file.read()
    try:
        value = parse_json(data)
        if not isinstance(value, dict) or "payload" not in value:
            return data, None, data
        signed = open_envelope(data, path)
        parse_json(signed.payload)
    except ValueError as error:
        raise _other(path, what, error) from None
    return signed.payload, signed.key, data


def _other(path: Path, what: str, error: ValueError) -> FileFormatError:
    return FileFormatError(f"{path}: expected {what}, found another file: {error}", code="damaged-file")


def check_terms(committed: Terms, terms: Terms) -> None:
    """Refuse to judge by other terms than those committed to.

    Raises:
        CommitmentError: With a line for each difference.
    """
    different = committed.differences(terms)
    if different:
        raise CommitmentError(different)


def flat(value: Json, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of nested JSON, each with all names on the way to it, since a name may have a dot in it."""
    for name, part in value.items():
        if isinstance(part, Mapping) and part:
            yield from flat(part, (*before, name))
        else:
            yield (*before, name), part


def _shown(value: str | None) -> str:
    return _NOTHING if value in (None, "null") else value
