"""What is in a bundle, and under which names: the manifest, a statement about all its other files."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from deepjudge_core.bundles.commitment import Terms
from deepjudge_core.bundles.statement import File, Statement

MANIFEST, SIGNATURE = "manifest.json", "signature.json"
SUITE, CALIBRATION, OBSERVATIONS = "suite.safetensors", "calibration.safetensors", "observations"
REPORT, ENVIRONMENT, QUERIES, COMMITTED = "report.json", "environment.json", "queries.jsonl", "commitment.json"
STAMP = "commitment.tsr"
_KIND = "urn:deepjudge:bundle:1"
_ALWAYS = frozenset({SUITE, CALIBRATION, REPORT, ENVIRONMENT, QUERIES})


def observation_name(place: int) -> str:
    """The file of what a suspect answered, by its place in the report, counted from 0."""
    return f"{OBSERVATIONS}/suspect-{place + 1:04}.safetensors"


def is_secret(name: str) -> bool:
    """Whether a file holds test cases of the victim, or what a model answered to them."""
    return name in (SUITE, CALIBRATION) or name.startswith(f"{OBSERVATIONS}/")


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
        predicate = {
            "terms": asdict(self.terms),
            "observations": list(self.observations),
            "withheld": list(self.withheld),
            "signed_by": self.signed_by,
        }
        return Statement(_KIND, tuple(self.files.values()), predicate).dump()

    @classmethod
    def parse(cls, data: bytes) -> "Manifest":
        """The inverse of :meth:`dump`: only the names of a bundle are taken, so that none leads out of its folder.

        Raises:
            ValueError, TypeError, LookupError, AttributeError: Saying what is wrong.
        """
        statement = Statement.parse(data, _KIND)
        given = statement.predicate
        found = cls(
            files={file.name: file for file in statement.files},
            terms=Terms.from_json(given["terms"]),
            observations=tuple(given["observations"]),
            withheld=tuple(given["withheld"]),
            signed_by=given["signed_by"],
        )
        for place, name in enumerate(found.observations):
            if name not in (None, observation_name(place)):
                raise ValueError(f"expected {observation_name(place)} or none, found {name!r}")
        names, expected = set(found.files), _ALWAYS.union(filter(None, found.observations))
        if names - {COMMITTED, STAMP} != expected:
            other = ", ".join(sorted((names - {COMMITTED, STAMP}) ^ expected))
            raise ValueError(f"expected the files of a bundle and no others; too many or too few: {other}")
        if STAMP in names and COMMITTED not in names:
            raise ValueError(f"expected {COMMITTED} beside {STAMP}")
        if not set(found.withheld) <= {name for name in names if is_secret(name)}:
            raise ValueError("expected only test cases and answers to be withheld")
        if not isinstance(found.signed_by, str | None):
            raise TypeError("expected a public key, or that nobody signed it")
        if found.dump() != data:
            raise ValueError("expected nothing else in it, found more")
        return found
