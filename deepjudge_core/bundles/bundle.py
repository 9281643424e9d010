"""A bundle: all that a verdict rests on in one folder, so that others can check it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from deepjudge_core.auditing.session import QueryEvent
from deepjudge_core.bundles.commitment import Commitment, Terms
from deepjudge_core.bundles.dating import committed_entry
from deepjudge_core.bundles.environment import describe_environment
from deepjudge_core.bundles.log import Query, QueryLog, Role, read_log, requests_of
from deepjudge_core.bundles.manifest import (
    CALIBRATION,
    COMMITTED,
    ENVIRONMENT,
    MANIFEST,
    OBSERVATIONS,
    PAGE,
    QUERIES,
    REPORT,
    RUNS,
    SIGNATURE,
    STAMP,
    SUITE,
    VICTIM,
    VICTIM_STAMP,
    Manifest,
    is_secret,
    observation_name,
)
from deepjudge_core.bundles.signing import Signer, sign
from deepjudge_core.bundles.statement import File
from deepjudge_core.bundles.victim import VictimCommitment, dated_entry
from deepjudge_core.components.registry import Plugin
from deepjudge_core.errors import FileFormatError
from deepjudge_core.files import storage
from deepjudge_core.judging.calibration import Calibration, save_calibration
from deepjudge_core.report.audit_json import dump
from deepjudge_core.report.documents import AuditReport
from deepjudge_core.report.html import render_html
from deepjudge_core.report.pages.any import Seal
from deepjudge_core.suites.observation import Observation, save_observation
from deepjudge_core.suites.suite import Suite, save_suite

_ANY_OBSERVATION = "suspect-[0-9]*.safetensors"


def withheld_folder(folder: Path) -> Path:
    """Where the secret files of a bundle go that is written without them: the folder beside it."""
    return folder.with_name(f"{folder.name}-withheld")


def belongs_to(path: Path, folder: Path) -> bool:
    """Whether a path lies in a bundle, or in the folder of what is withheld from it."""
    return any(path.resolve().is_relative_to(part.resolve()) for part in (folder, withheld_folder(folder)))


class BundleWriter:
    """Writes a bundle, each part as soon as it is known, and the manifest when all are there.

    Args:
        folder: Where it goes.
        withhold: Whether the secret files go to the :func:`withheld_folder`. The manifest names them all the same.
        commitment: What was committed to before.
        stamp: The response that stamps the commitment.
        victim: A commitment to the victim from before.
        victim_stamp: The response that stamps that.
        signer: Who signs the manifest.
    """

    def __init__(
        self,
        folder: Path,
        *,
        withhold: bool = False,
        commitment: Commitment | None = None,
        stamp: bytes | None = None,
        victim: VictimCommitment | None = None,
        victim_stamp: bytes | None = None,
        signer: Signer | None = None,
    ) -> None:
        self._folder, self._commitment, self._stamp, self._signer = folder, commitment, stamp, signer
        self._victim, self._victim_stamp = victim, victim_stamp
        self._secrets = withheld_folder(folder) if withhold else folder
        self._log = QueryLog(folder / QUERIES)
        self._observations: list[str | None] = []
        self._suite, self._cases = "", 0

    def replaces(self, path: Path) -> bool:
        """Whether a file is of an earlier audit in this folder, which :meth:`add_suite` removes."""
        return path.resolve() in {stale.resolve() for stale in self._stale()}

    def add_suite(self, suite: Suite, *, stored: bool = False) -> None:
        """Write the suite, and remove what an earlier audit left.

        Args:
            suite: The suite.
            stored: Whether it was made before.

        Raises:
            FileFormatError: When something cannot be written or removed.
        """
        for path in self._stale():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise FileFormatError(
                    f"{path}: cannot be removed: {error.strerror or error}", code="cannot-write"
                ) from error
        save_suite(self._secrets / SUITE, suite)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._suite, self._cases = suite.digest, len(suite.cases.inputs)
        self._tell("victim", suite.victim.model.name, suite.victim, stored=stored)

    def add_answer(self, event: QueryEvent) -> None:
        """Write what a control or a suspect answered, or that it failed to, into the log, and a suspect's answers.

        Raises:
            FileFormatError: When it cannot be written.
        """
        if event.role == "suspect":
            name = observation_name(len(self._observations)) if event.observation else None
            self._observations.append(name)
            if event.observation and name:
                save_observation(self._secrets / name, event.observation)
        self._tell(event.role, event.name, event.observation, stored=event.stored, failure=event.failure)

    def add_calibration(self, calibration: Calibration, *, stored: bool = False) -> None:
        """Write the calibration.

        Args:
            calibration: The calibration.
            stored: Whether it was made before, so that the log does not have the controls yet.

        Raises:
            FileFormatError: When it cannot be written.
        """
        for control in calibration.controls if stored else ():
            self._tell("control", control.model.name, control, stored=True)
        save_calibration(self._secrets / CALIBRATION, calibration)

    def dated(self, report: AuditReport) -> AuditReport:
        """A report that says since when all was fixed, and the victim there, as far as commitments and stamps tell.

        Raises:
            FileFormatError: When the log cannot be read.
        """
        if self._victim:
            report = replace(report, dated=dated_entry(self._victim.data, self._victim_stamp))
        if not (self._commitment and self._stamp):
            return report
        queries = read_log(self._folder / QUERIES)
        return replace(report, committed=committed_entry(self._commitment.data, self._stamp, queries))

    def finish(
        self, report: AuditReport, terms: Terms, plugins: Iterable[Plugin], register: bytes | None = None
    ) -> Seal:
        """Write the report and what is known at the end, then the manifest, its signature and the page.

        Args:
            report: What came of the audit.
            terms: By what was judged.
            plugins: What is installed.
            register: The runs of the suite, this one among them.

        Returns:
            What the page says of the bundle.

        Raises:
            FileFormatError: When it cannot be written.
        """
        parts = {
            REPORT: dump(report).encode(),
            ENVIRONMENT: describe_environment(plugins).dump(),
        }
        if self._commitment:
            parts[COMMITTED] = self._commitment.data
        if self._stamp:
            parts[STAMP] = self._stamp
        if self._victim:
            parts[VICTIM] = self._victim.data
        if self._victim_stamp:
            parts[VICTIM_STAMP] = self._victim_stamp
        if register:
            parts[RUNS] = register
        for name, data in parts.items():
            storage.write_bytes(self._folder / name, data)
        secret = [SUITE, CALIBRATION, *(name for name in self._observations if name)]
        names = sorted([*parts, QUERIES, *secret])
        manifest = Manifest(
            files={name: File.of(self._place(name), name) for name in names},
            terms=terms,
            observations=tuple(self._observations),
            withheld=tuple(sorted(secret)) if self._secrets != self._folder else (),
            signed_by=self._signer.public if self._signer else None,
        ).dump()
        storage.write_bytes(self._folder / MANIFEST, manifest)
        if self._signer:
            storage.write_bytes(self._folder / SIGNATURE, sign(manifest, self._signer))
        # It names the manifest, which so cannot list it.
        seal = Seal(File.of_bytes(manifest, MANIFEST).sha256, self._signer.public if self._signer else None)
        storage.write_bytes(self._folder / PAGE, render_html(report, seal))
        return seal

    def _tell(
        self,
        role: Role,
        name: str,
        observation: Observation | None,
        *,
        stored: bool = False,
        failure: str | None = None,
    ) -> None:
        self._log.add(
            Query(
                role,
                name,
                digest=observation.model.digest if observation else None,
                suite=self._suite,
                cases=self._cases,
                layers=dict(observation.layer_map) if observation else {},
                stored=stored,
                observation=observation.digest if observation else None,
                failure=failure,
                requests=requests_of(observation.exchange if observation else None),
            )
        )

    def _place(self, name: str) -> Path:
        return (self._secrets if is_secret(name) else self._folder) / name

    def _stale(self) -> Iterator[Path]:
        # The manifest first: without it nothing is taken for a bundle.
        named = (MANIFEST, SIGNATURE, COMMITTED, STAMP, VICTIM, VICTIM_STAMP, RUNS, REPORT, PAGE, ENVIRONMENT, QUERIES)
        for name in named:
            yield self._folder / name
        for folder in {self._folder, self._secrets}:
            yield folder / SUITE
            yield folder / CALIBRATION
            yield from sorted((folder / OBSERVATIONS).glob(_ANY_OBSERVATION))
