"""What is fixed of a victim before a dispute: its digest, and for a challenge the inputs and how a suite is made."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET, UnsetType

from deepjudge_core.bundles.commitment import open_commitment
from deepjudge_core.bundles.signing import Signer, sign
from deepjudge_core.bundles.statement import File, Statement
from deepjudge_core.bundles.timestamp import read_response
from deepjudge_core.files.digests import FileDigests
from deepjudge_core.files.documents import Document, Part, Sha256, plain
from deepjudge_core.report.documents import DatedEntry
from deepjudge_core.suites.choices import Choices
from deepjudge_core.suites.inputs.origin import Origin
from deepjudge_core.suites.suite import Suite
from deepjudge_core.version import VERSION

VICTIM = "urn:deepjudge:victim:1"
"""What kind of statement a commitment to a victim is."""
_ALONE = "."  # the name of a model of one file


class VictimTerms(Document, frozen=True, kw_only=True):
    """What is committed to of a victim.

    Attributes:
        deepjudge: Version.
        model: SHA-256 that says which model it is.
        files: SHA-256 of each of its files.
        inputs: Where seeds are going to be selected and drawn from; unset if only the model is committed to.
        suite: How the suite is going to be made; likewise.
    """

    deepjudge: str
    model: Sha256
    files: Mapping[str, Sha256]
    inputs: Origin | UnsetType = UNSET
    suite: Choices | UnsetType = UNSET

    def mistakes(self, suite: Suite) -> Iterator[str]:
        """What of a suite is not as was committed to: a line for each."""
        if suite.challenge is None:
            yield from self._other_victim(suite.victim.model.digest)
        else:
            yield from self.mistakes_of(suite.victim.model.digest, suite.origin, suite.choices)

    def mistakes_of(self, model: str, origin: Origin | None, choices: Choices | None) -> Iterator[str]:
        """The same of what a suite with a challenge is made of.

        Args:
            model: The victim's digest.
            origin: Where the inputs are from.
            choices: How the suite is made.
        """
        yield from self._other_victim(model)
        if self.suite is UNSET or self.inputs is UNSET:
            yield "inputs: a challenge needs a commitment to inputs and options, found one to a victim alone"
            return
        pairs = {"inputs": (self.inputs.digest, origin and origin.digest)}
        pairs["reading of inputs"] = (str(dict(self.inputs.options)), str(origin and dict(origin.options)))
        chosen = {} if choices is None else plain(choices)
        pairs |= {name: (str(value), str(chosen.get(name))) for name, value in plain(self.suite).items()}
        yield from (
            f"{name}: committed to {ours}, found {theirs}" for name, (ours, theirs) in pairs.items() if ours != theirs
        )

    def _other_victim(self, model: str) -> Iterator[str]:
        if model != self.model:
            yield f"victim: committed to {self.model}, found {model}"


class _Predicate(Part, frozen=True):
    terms: VictimTerms


@dataclass(frozen=True)
class VictimCommitment:
    """A commitment to a victim as it stands in a file.

    Attributes:
        terms: What was committed to.
        key: The public key that signed it, in hex; None where nobody did.
        data: The bytes of the file.
    """

    terms: VictimTerms
    key: str | None
    data: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.data).hexdigest()


def dump_victim(
    path: Path,
    digests: FileDigests,
    *,
    inputs: Origin | None = None,
    suite: Choices | None = None,
    signer: Signer | None = None,
) -> bytes:
    """A commitment to a victim, as it stands in a file; equal ones give equal bytes.

    Args:
        path: The model's file or folder.
        digests: Its digests.
        inputs: Where seeds are going to be from.
        suite: How the suite is going to be made.
        signer: Who signs it.

    Raises:
        FileFormatError: When a file cannot be read.
    """
    places = {
        name: path if name == _ALONE else (path if path.is_dir() else path.parent) / name for name in digests.files
    }
    files = tuple(File.of(place, path.name if name == _ALONE else name) for name, place in places.items())
    terms = VictimTerms(
        deepjudge=VERSION, model=digests.digest, files=digests.files, inputs=inputs or UNSET, suite=suite or UNSET
    )
    payload = Statement(VICTIM, files, plain(_Predicate(terms))).dump()
    return payload if signer is None else sign(payload, signer)


def load_victim(path: Path) -> VictimCommitment:
    """Read a commitment to a victim.

    Raises:
        FileFormatError: When it is none, or was changed.
        MissingExtraError: When it is signed, and the library for that is not there.
    """
    predicate, key, data = open_commitment(path, _Predicate, VICTIM, "a commitment to a victim")
    return VictimCommitment(predicate.terms, key, data)


def dated_entry(commitment: bytes, stamp: bytes | None) -> DatedEntry:
    """What a report says of since when the victim has existed.

    Args:
        commitment: The file of the commitment to it.
        stamp: The response that stamps it; None without one.

    Raises:
        FileFormatError: When the response stamps something else, or is none.
        MissingExtraError: Without the library.
    """
    digest = hashlib.sha256(commitment).hexdigest()
    if stamp is None:
        return DatedEntry(digest)
    time = read_response(stamp, commitment, "the victim's time-stamp").time
    return DatedEntry(digest, time.strftime("%Y-%m-%dT%H:%M:%SZ"))
