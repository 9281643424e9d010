"""``deepjudge show``."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepjudge_core.bundles.manifest import MANIFEST as BUNDLE
from deepjudge_core.cli import describing, terminal
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.commands.audit import AuditCommand
from deepjudge_core.cli.many import ListSettings
from deepjudge_core.cli.sources import begun
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.errors import FileFormatError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.files.reading import read_json
from deepjudge_core.fleets.records import as_csv, as_parquet, check_parquet, records
from deepjudge_core.fleets.store import Store, is_store
from deepjudge_core.observing.settings import OpeningSettings
from deepjudge_core.report.documents import AUDIT, POWER, AuditReport, read_report
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.sheets import Sheet
from deepjudge_core.suites import inputs
from deepjudge_core.suites.keys import load_key
from deepjudge_core.suites.observation import load_observation
from deepjudge_core.suites.suite import load_suite
from deepjudge_core.zoo import manifest

_SCHEMAS = (AUDIT, manifest.SCHEMA, POWER)
_OWN = ("suite", "observation", "calibration", "key")


@dataclass(frozen=True, kw_only=True)
class ShowCommand(Command):
    """Describe a file or folder: what deepjudge wrote, inputs, or a model."""

    path: Path = argument(
        "PATH",
        "a suite, an observation, a calibration, a key, a report, a commitment, a zoo, a bundle, the results of a "
        "fleet, an AUDIT.toml, inputs, or a model",
        reads=True,
    )
    json: bool = setting(
        "print JSON: a report unchanged, other things as shown", "--json", default=False, group="output"
    )
    listing: ListSettings = part(ListSettings)
    opening: OpeningSettings = part(OpeningSettings)
    confinement: Confinement = part(Confinement)

    def run(self) -> int:
        """Describe it."""
        if self.listing.said and not is_store(self.path):
            raise UsageError(
                "--only, --victim, --sort, --csv and --parquet concern the results of 'deepjudge fleet', "
                f"found {self.path}",
                code="conflict",
            )
        if not self.json:
            print_sheets(self._sheets())
            return NO_COPY
        document = read_json(self.path, "a deepjudge report") if self.path.suffix == ".json" else None
        json.dump(document if _is_own(document) else describing.as_json(self._sheets()), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return NO_COPY

    def _sheets(self) -> Iterable[Sheet]:
        path = self.path
        if is_store(path):
            return list(self._of_results())
        if path.is_dir() and (path / BUNDLE).is_file():
            return describing.of_bundle(path)
        if path.is_dir() and (path / manifest.MANIFEST).is_file():
            return [manifest.load_zoo(path).sheet()]
        if path.suffix == ".toml":
            return describing.of_plan(path, begun(), AuditCommand)
        document = read_json(path, "a deepjudge report") if path.suffix == ".json" else None
        if _is_own(document):
            return _of_document(path, document)
        if describing.is_commitment(document):
            return [describing.of_commitment(path)]
        if storage.is_own(path):
            return _of_own(path)
        session = begun(self.confinement)
        if session.registry.adapters.reads(path):
            return describing.of_model(path, self.opening.options, session)
        if inputs.reads(path):
            return describing.of_inputs(path)
        if path.is_file() and path.suffix == ".json":
            raise FileFormatError(f"{path}: expected one of {', '.join(_SCHEMAS)}, or a commitment, found other JSON")
        raise describing.refuse(path, session.registry.adapters)

    def _of_results(self) -> Iterator[Sheet]:
        # All that is known, as files; and a table for each suite.
        listing = self.listing
        if listing.parquet:
            check_parquet()
        with Store(self.path, make=False) as store:
            found = records(store, only=listing.only, victim=listing.victim, sort=listing.sort)
            if listing.csv:
                storage.write_bytes(listing.csv, as_csv(found))
            if listing.parquet:
                storage.write_bytes(listing.parquet, as_parquet(found))
            for suite in store.suites():
                some = [one for one in found if one.suite == suite.digest]
                if some or listing.victim is None:
                    yield describing.of_results(suite, some)


def print_sheets(sheets: Iterable[Sheet]) -> None:
    """Print sheets, an empty line between them."""
    out = terminal.console()
    for place, sheet in enumerate(sheets):
        for line in ([""] if place else []) + sheet.text().splitlines():
            terminal.say(out, line)


def _is_own(document: Any) -> bool:
    # Other JSON may be a model's.
    return isinstance(document, dict) and document.get("schema") in _SCHEMAS


def _of_document(path: Path, document: Any) -> Iterable[Sheet]:
    if document["schema"] == manifest.SCHEMA:
        return [manifest.load_zoo(path.parent).sheet()]
    report = read_report(path)
    return describing.of_report(report) if isinstance(report, AuditReport) else describing.of_power(report)


def _of_own(path: Path) -> Iterable[Sheet]:
    kind = storage.read(path, _OWN).kind
    if kind == "suite":
        return describing.of_suite(load_suite(path))
    if kind == "key":
        return [describing.of_key(load_key(path))]
    return [load_observation(path).sheet()] if kind == "observation" else describing.of_controls(path)
