"""What is in a bundle, and under which names: the manifest, a statement about all its other files."""

from collections.abc import Mapping
from dataclasses import dataclass

from deepjudge_core.bundles.commitment import Terms
from deepjudge_core.bundles.statement import File, Statement
from deepjudge_core.files.documents import Document, parse, plain

MANIFEST, SIGNATURE = "manifest.json", "signature.json"
SUITE, CALIBRATION, OBSERVATIONS = "suite.safetensors", "calibration.safetensors", "observations"
REPORT, ENVIRONMENT, QUERIES, COMMITTED = "report.json", "environment.json", "queries.jsonl", "commitment.json"
STAMP, PAGE = "commitment.tsr", "report.html"
VICTIM, VICTIM_STAMP, RUNS = "victim.json", "victim.tsr", "runs.jsonl"
_KIND = "urn:deepjudge:bundle:1"
_ALWAYS = frozenset({SUITE, CALIBRATION, REPORT, ENVIRONMENT, QUERIES})
_SOMETIMES = frozenset({COMMITTED, STAMP, VICTIM, VICTIM_STAMP, RUNS, PAGE})  # the page in bundles of before


def observation_name(place: int) -> str:
    """The file of what a suspect answered, by its place in the report, counted from 0."""
    return f"{OBSERVATIONS}/suspect-{place + 1:04}.safetensors"


def is_secret(name: str) -> bool:
    """Whether a file holds test cases of the victim, or what a model answered to them."""
    return name in (SUITE, CALIBRATION) or name.startswith(f"{OBSERVATIONS}/")


class _Predicate(Document, frozen=True):
    # What the statement says of its files; see Manifest.
    terms: Terms
    observations: tuple[str | None, ...]
    withheld: tuple[str, ...]
    signed_by: str | None


@dataclass(frozen=True)
class Manifest:
    """The manifest of a bundle.

    Attributes:
        files: All files but the manifest and its signature, by name.
        terms: By what suspects were judged.
        observations: Of each suspect, in the report's order, the file of what it answered; None where it failed to.
        withheld: Names of files that may not be there.
        signed_by: The public key, in hex, whose signature there is; None where there is none.
    """

    files: Mapping[str, File]
    terms: Terms
    observations: tuple[str | None, ...]
    withheld: tuple[str, ...]
    signed_by: str | None

    def dump(self) -> bytes:
        """The manifest as it stands in a file; equal ones give equal bytes."""
        predicate = _Predicate(self.terms, self.observations, self.withheld, self.signed_by)
        return Statement(_KIND, tuple(self.files.values()), plain(predicate)).dump()

    @classmethod
    def parse(cls, data: bytes) -> "Manifest":
        """The inverse of :meth:`dump`: only the names of a bundle are taken, so that none leads out of its folder.

        Raises:
            ValueError: Saying what is wrong.
        """
        statement = Statement.parse(data, _KIND)
        predicate = parse(_Predicate, statement.predicate)
        manifest = cls(
            files={file.name: file for file in statement.files},
            terms=predicate.terms,
            observations=predicate.observations,
            withheld=predicate.withheld,
            signed_by=predicate.signed_by,
        )
        for place, name in enumerate(manifest.observations):
            if name not in (None, observation_name(place)):
                raise ValueError(f"expected {observation_name(place)} or null, found {name!r}")
        names, expected = set(manifest.files), _ALWAYS.union(filter(None, manifest.observations))
        if names - _SOMETIMES != expected:
            other = ", ".join(sorted((names - _SOMETIMES) ^ expected))
            raise ValueError(f"expected exactly the files of a bundle; missing or unexpected: {other}")
        if STAMP in names and COMMITTED not in names:
            raise ValueError(f"expected {COMMITTED} together with {STAMP}")
        if VICTIM_STAMP in names and VICTIM not in names:
            raise ValueError(f"expected {VICTIM} together with {VICTIM_STAMP}")
        if not set(manifest.withheld) <= {name for name in names if is_secret(name)}:
            raise ValueError("expected that only test cases and answers are withheld")
        if manifest.dump() != data:
            raise ValueError("expected only the entries of a manifest, found more")
        return manifest
