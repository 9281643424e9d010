"""Verify a bundle without any model: every hash, the log, the signature, and all that follows from what is stored."""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.auditing.outcome import AuditOutcome, SuspectResult
from deepjudge_core.auditing.session import Session
from deepjudge_core.bundles.commitment import Commitment, Terms, load_commitment
from deepjudge_core.bundles.dating import committed_entry
from deepjudge_core.bundles.environment import Environment
from deepjudge_core.bundles.log import Query, Role, read_log, requests_of, time_of
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
)
from deepjudge_core.bundles.names import look_alikes
from deepjudge_core.bundles.register import decided_in, digest_of, head_of, parse_register
from deepjudge_core.bundles.signing import open_envelope
from deepjudge_core.bundles.statement import File
from deepjudge_core.bundles.timestamp import Stamp, read_response
from deepjudge_core.bundles.victim import dated_entry, load_victim
from deepjudge_core.errors import DeepJudgeError, FileFormatError, MissingExtraError
from deepjudge_core.files.documents import Json, plain
from deepjudge_core.files.reading import LARGEST_ARRAYS, LARGEST_JSON, open_regular
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge
from deepjudge_core.naming import option
from deepjudge_core.report.audit_json import report_to_json
from deepjudge_core.report.documents import AuditReport, ControlEntry, SuspectEntry, VictimEntry, read_audit
from deepjudge_core.report.html import render_html
from deepjudge_core.report.markdown import render_markdown
from deepjudge_core.report.pages.any import Seal
from deepjudge_core.sheets import listed
from deepjudge_core.suites.arithmetic import mistakes_of, unchecked_of
from deepjudge_core.suites.observation import Observation, load_observation
from deepjudge_core.suites.suite import load_suite
from deepjudge_core.text import counted
from deepjudge_core.version import VERSION

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SENTENCES = ("reason", "statement", "notes", "limits")  # keys of a report whose texts are sentences
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_MOST_REWORDED = 20
_NEVER = datetime.min.replace(tzinfo=UTC)
_CLAIMS = (
    "names of models and files, times of the log, strata of controls, devices, levels of isolation, the environment, "
    "and who made the report when"
)
"""What is in every bundle and follows from nothing else in it."""
RELATIVE, ABSOLUTE = 1e-5, 1e-7
"""How far recomputed numbers may be from those in the report: metrics may add up float32, and another processor or BLAS
does so in another order. Decisions, votes and texts are compared exactly."""


@dataclass(frozen=True)
class Verification:
    """What came of verifying a bundle.

    Attributes:
        digest: SHA-256 of the manifest, in hex; None without one that can be read.
        findings: What is wrong, a line each, beginning with the file; none where nothing is.
        unchecked: What could not be checked, a line each: a library or a file is missing, or only a model could tell.
        claims: What is the maker's word alone, a line each.
        notes: What a reader should know of how far that goes.
        signed_by: The public key, in hex, whose signature the manifest has; None where it has none that is right.
        recomputed: Of how many suspects measurements and verdict were recomputed and agree.
        stamp: Since when the commitment was there, as an authority says; None without a time-stamp that is right, or
            where it was not looked at.
    """

    digest: str | None
    findings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    signed_by: str | None = None
    recomputed: int = 0
    stamp: Stamp | None = None
    unchecked: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether nothing is wrong, and everything was checked that a bundle is checked for."""
        return not self.findings and not self.unchecked


@dataclass(frozen=True)
class _Remarks:
    # What is said of a bundle beside what is wrong with it.
    notes: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)


def verify_bundle(
    folder: Path,
    public_key: str | None = None,
    certificates: "Sequence[Certificate] | None" = None,
    *,
    page: Path | None = None,
    session: Session | None = None,
) -> Verification:
    """Verify a bundle, which may be anybody's.

    Args:
        folder: Where it is.
        public_key: Who has to have signed it, 32 bytes in hex; None for anybody or nobody.
        certificates: What the authority's certificate has to come from that stamped the commitment; None for any
            authority's time-stamp, or none.
        page: A page for people, HTML or Markdown, that has to be the one of the bundle's report.
        session: Where the metrics and rules are.

    Raises:
        FileFormatError: When the page cannot be read.
        MissingExtraError: When a public key or certificates are given, and the library for them is not there.
    """
    try:
        data = _read(folder, MANIFEST)
        manifest = Manifest.parse(data)
    except FileFormatError as error:
        return Verification(None, (_within(folder, error),))
    except ValueError as error:
        return Verification(None, (f"{MANIFEST}: expected the manifest of a bundle: {error}",))
    digest = File.of_bytes(data, MANIFEST).sha256
    said = _Remarks()
    findings = [*_check_signature(folder, data, manifest, public_key, said)]
    signed_by = None if findings or said.unchecked else manifest.signed_by
    if not findings and manifest.signed_by is None:
        said.notes.append("not signed: anyone could have replaced the whole bundle")
    elif signed_by and public_key is None:
        said.notes.append(
            f"the signature was checked against the key named in the bundle itself; "
            f"{option('public_key')} checks whose key it is"
        )
    findings += _check_files(folder, manifest)
    if certificates is not None and STAMP not in manifest.files:
        findings.append(f"{STAMP}: expected the time-stamp of a commitment, found none")
    absent = [name for name in manifest.withheld if not (folder / name).exists()]
    if findings:
        said.notes.append("nothing was recomputed, because the checks before it failed")
    else:
        seal = Seal(digest, manifest.signed_by)
        findings += _check_contents(folder, manifest, absent, seal, session or Session(), said, certificates)
        findings += [] if page is None else _check_other_page(folder, page, seal)
    stamp = None
    if not findings and STAMP in manifest.files:
        try:
            stamp = _check_stamp(folder, certificates, said.notes)
            findings += _check_date(folder)
        except MissingExtraError as error:
            if certificates is not None:
                raise
            said.unchecked.append(f"the time-stamp was not checked: {error}")
        except FileFormatError as error:
            findings.append(_within(folder, error))
    elif STAMP not in manifest.files:
        said.notes.append(_UNDATED)
    recomputed = 0 if findings or absent else sum(name is not None for name in manifest.observations)
    return Verification(
        digest,
        tuple(findings),
        tuple(said.notes),
        signed_by,
        recomputed,
        stamp,
        tuple(said.unchecked),
        (_CLAIMS, *said.claims),
    )


_UNDATED = (
    "no time-stamp: nothing shows since when cases, controls and rule have been fixed, nor how many others were tried"
)


def _check_signature(
    folder: Path, data: bytes, manifest: Manifest, public_key: str | None, said: _Remarks
) -> Iterator[str]:
    there = os.path.lexists(folder / SIGNATURE)
    if manifest.signed_by is None:
        if there:
            yield f"{SIGNATURE}: exists, although the manifest says that the bundle is unsigned"
        if public_key is not None:
            yield f"{MANIFEST}: expected the signature of {public_key}, found none"
        return
    try:
        signed = open_envelope(_read(folder, SIGNATURE), folder / SIGNATURE)
    except MissingExtraError as error:
        if public_key is not None:
            raise
        said.unchecked.append(f"the signature was not checked: {error}")
    except FileFormatError as error:
        yield _within(folder, error)
    except ValueError as error:
        yield f"{SIGNATURE}: {error}"
    else:
        if signed.payload != data:
            yield f"{SIGNATURE}: signs another manifest"
        expected = manifest.signed_by if public_key is None else public_key
        if (signed.key, manifest.signed_by) != (expected, expected):
            yield f"{SIGNATURE}: expected a signature by {expected}, found one by {signed.key}"


def _check_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    for name, file in manifest.files.items():
        path = folder / name
        if name in manifest.withheld and not os.path.lexists(path):
            continue
        try:
            _refuse_link(folder, name)
            actual = File.of(path, name, LARGEST_ARRAYS if is_secret(name) else LARGEST_JSON)
        except FileFormatError as error:
            yield _within(folder, error)
        except OSError as error:
            yield f"{name}: cannot be read: {error.strerror}"
        else:
            if actual.size != file.size:
                yield f"{name}: was changed (expected {file.size} bytes, found {actual.size})"
            elif actual != file:
                yield f"{name}: was changed (its SHA-256 does not match)"
    listed = {*manifest.files, MANIFEST, SIGNATURE, PAGE}
    try:
        yield from (f"{name}: is not in the manifest" for name in _names(folder) if name not in listed)
    except OSError as error:
        yield f"{folder}: cannot be listed: {error.strerror}"


def _names(folder: Path) -> Iterator[str]:
    # Of what is in the folder, folders and links for themselves but for the one folder that belongs there.
    for path in sorted(folder.iterdir()):
        if path.name == OBSERVATIONS and path.is_dir() and not path.is_symlink():
            yield from (f"{OBSERVATIONS}/{inner.name}" for inner in sorted(path.iterdir()))
        else:
            yield path.name


def _check_contents(
    folder: Path,
    manifest: Manifest,
    absent: Sequence[str],
    seal: Seal,
    session: Session,
    said: _Remarks,
    certificates: "Sequence[Certificate] | None",
) -> Iterator[str]:
    # Whoever changed a file and the manifest with it is found here.
    try:
        report, values = _read_report(folder, manifest)
        queries = read_log(folder / QUERIES)
        yield from _check_page(folder, manifest, report, seal, said)
        yield from _check_environment(folder, manifest)
        yield from _check_log(queries, manifest, report, said.notes)
        yield from _check_commitment(folder, manifest, queries, report, said)
        yield from _check_victim(folder, manifest, report, certificates, said)
        yield from _check_register(folder, manifest, report, said)
        yield from _say_chosen(report, said)
        said.claims.extend(look_alikes(model.path for _, model in _models_of(report)))
        for suspect, name in zip(report.suspects, manifest.observations, strict=True):
            if name is None:
                said.unchecked.append(
                    f"{suspect.path} is said to have failed, and only the model could show it: {suspect.reason}"
                )
        if absent:
            yield from _check_models(queries, report)
            said.unchecked.append(
                f"verdicts were not recomputed: {len(absent)} files with test cases and answers were withheld"
            )
        else:
            yield from _check_stored(queries, report)
            yield from _recompute(folder, manifest, report, values, queries, session, said)
    except DeepJudgeError as error:
        yield _within(folder, error)


def _read_report(folder: Path, manifest: Manifest) -> tuple[AuditReport, Json]:
    # What is said here again of what the manifest says has to be the same.
    report, values = read_audit(folder / REPORT)
    if len(report.suspects) != len(manifest.observations):
        raise FileFormatError(f"{REPORT}: expected {len(manifest.observations)} suspects, found {len(report.suspects)}")
    if any(s.reason is None for s, name in zip(report.suspects, manifest.observations, strict=True) if name is None):
        raise FileFormatError(f"{REPORT}: expected an observation for each suspect, or a reason why it is missing")
    terms = manifest.terms
    pairs = {
        "deepjudge": (report.deepjudge, terms.deepjudge),
        "suite": (report.suite.digest, terms.suite),
        "rule": (report.rule, terms.judging.rule),
        "rule_options": (report.rule_options, terms.judging.rule_options),
        "groups": (report.groups, terms.judging.groups),
        "require_layers": (report.require_layers, terms.judging.require_layers),
        "fdr": (report.fleet.fdr if report.fleet else UNSET, terms.judging.fdr),
        "metrics": ({**terms.components, **_providers(report)}, terms.components),
    }
    if report.committed and STAMP not in manifest.files:
        raise FileFormatError(f"{REPORT}: committed: expected a time-stamp of a commitment, found none")
    others = [name for name, (here, there) in pairs.items() if here != there]
    if others:
        raise FileFormatError(f"{REPORT}: expected {', '.join(others)} as in the manifest, found others")
    return report, values


def _providers(report: AuditReport) -> dict[str, str]:
    # Who brought its metrics, as terms say it; not in reports of versions that did not say.
    return {f"metric {name}": metric.provider for name, metric in report.metrics.items() if metric.provider}


def _check_page(folder: Path, manifest: Manifest, report: AuditReport, seal: Seal, said: _Remarks) -> Iterator[str]:
    # People read the page, and it has to say what was verified. That of an earlier version is one of the manifest's
    # files, and does not name it.
    if PAGE in manifest.files:
        said.unchecked.append(f"{PAGE} is in the manifest, as earlier versions made it, so it was not compared")
        return
    if not os.path.lexists(folder / PAGE):
        said.notes.append(f"{PAGE} is not there; it can be made again from {REPORT}")
        return
    if _read(folder, PAGE) == render_html(report, seal):
        return
    if report.deepjudge == VERSION:
        yield f"{PAGE}: expected the page of {REPORT}, found another one"
    else:
        said.unchecked.append(
            f"{PAGE} was not checked, because version {report.deepjudge} made it, and this is {VERSION}"
        )


def _check_other_page(folder: Path, page: Path, seal: Seal) -> Iterator[str]:
    # A page that somebody was given apart from the bundle.
    with open_regular(page, "a page of a report", LARGEST_JSON) as file:
        found = file.read()
    report, _ = read_audit(folder / REPORT)
    if found in (render_html(report, seal), render_markdown(report, seal)):
        return
    made_by = "" if report.deepjudge == VERSION else f"; version {report.deepjudge} made the bundle, this is {VERSION}"
    yield f"{page}: expected the page of this bundle's {REPORT}, as HTML or Markdown, found another one{made_by}"


def _check_environment(folder: Path, manifest: Manifest) -> Iterator[str]:
    try:
        environment = Environment.parse(_read(folder, ENVIRONMENT))
    except ValueError as error:
        yield f"{ENVIRONMENT}: expected the description of an environment: {error}"
        return
    version = environment.packages.get("deepjudge")
    if version not in (None, manifest.terms.deepjudge):
        yield f"{ENVIRONMENT}: expected deepjudge {manifest.terms.deepjudge} as in {MANIFEST}, found {version}"


def _check_log(queries: Sequence[Query], manifest: Manifest, report: AuditReport, notes: list[str]) -> Iterator[str]:
    if any(query.suite != manifest.terms.suite for query in queries):
        yield f"{QUERIES}: one of its models was asked another suite"
    for number, (before, after) in enumerate(pairwise(queries), 2):
        if (time_of(after) or _NEVER) < (time_of(before) or _NEVER):
            yield f"{QUERIES}: line {number}: expected a time from {before.time} on, found {after.time}"
    last = queries[-1].time if queries else None
    if report.made and report.made.date and last and report.made.date < last:
        notes.append(f"the report says that it was made on {report.made.date}, before the log's last line, {last}")
    logged = [(query.model, query.observation is None, query.failure) for query in _of(queries, "suspect")]
    expected = [
        (suspect.path, name is None, suspect.reason if name is None else None)
        for suspect, name in zip(report.suspects, manifest.observations, strict=True)
    ]
    if logged != expected:
        yield f"{QUERIES}: expected one line per suspect of the report, in the same order, found others"
    # A commitment has a note for each of them.
    stored = [query.model for query in _of(queries, "suspect") if query.stored]
    if stored and COMMITTED not in manifest.files:
        notes.append(
            f"{len(stored)} of {len(logged)} suspects had answered before the audit, and the log does not say when: "
            f"{listed(stored)}"
        )
    for number, query in enumerate(queries, 1):
        # Of a model either answers are there, or why there are none.
        answered, failed = query.observation is not None, query.failure is not None
        if answered == failed or (failed and (query.digest or query.layers)):
            yield f"{QUERIES}: line {number}: expected either answers of {query.model} or a failure, found another line"
    if len(_of(queries, "victim")) != 1:
        yield f"{QUERIES}: expected one line for the victim, found {len(_of(queries, 'victim'))}"


def _models_of(report: AuditReport) -> Iterator[tuple[Role, VictimEntry | ControlEntry | SuspectEntry]]:
    yield "victim", report.victim
    yield from (("control", control) for control in report.calibration.controls)
    yield from (("suspect", suspect) for suspect in report.suspects)


def _check_models(queries: Sequence[Query], report: AuditReport) -> Iterator[str]:
    # Those in the report are those that were asked; where answers are there, these say it.
    for role, model in _models_of(report):
        if model.digest is None:
            continue
        logged = {(query.digest, query.model if role == "suspect" else None) for query in _of(queries, role)}
        if (model.digest, model.path if role == "suspect" else None) not in logged:
            yield f"{QUERIES}: a {role} of the report, {json.dumps(model.path)}, has no line with its digest"


def _check_stored(queries: Sequence[Query], report: AuditReport) -> Iterator[str]:
    # Answers that are claims are never said to be asked for. Those that a run before had stored are no claims, but in
    # the log as well.
    for query, suspect in zip(_of(queries, "suspect"), report.suspects, strict=False):
        if suspect.stored is True and not query.stored:
            yield f"{QUERIES}: the line of {query.model} says that it was asked; the report says that it was not"


def _check_commitment(
    folder: Path, manifest: Manifest, queries: Sequence[Query], report: AuditReport, said: _Remarks
) -> Iterator[str]:
    if COMMITTED not in manifest.files:
        return
    try:
        commitment = load_commitment(folder / COMMITTED)
    except MissingExtraError as error:
        said.unchecked.append(f"the commitment was not checked: {error}")
        return
    notes = said.notes
    yield from (f"{COMMITTED}: {line}" for line in commitment.terms.differences(manifest.terms))
    yield from _check_suspects(commitment, report, said.notes)
    signer = commitment.key or "nobody"
    if commitment.key != manifest.signed_by:
        signer += ", not by the signer of the bundle"
    notes.append(f"judged as committed; the commitment is signed by {signer}")
    notes += (
        (f"{query.model} had answered before the audit, and possibly before the commitment; the log does not say when")
        for query in _of(queries, "suspect")
        if query.stored
    )


def _check_suspects(commitment: Commitment, report: AuditReport, notes: list[str]) -> Iterator[str]:
    if commitment.suspects is None:
        notes.append("the commitment names no suspects, so nothing shows how many others were looked at")
        return
    judged = {suspect.digest for suspect in report.suspects if suspect.digest}
    for suspect in report.suspects:
        if suspect.digest and suspect.digest not in commitment.suspects:
            yield f"{COMMITTED}: suspects: committed to {len(commitment.suspects)}, found another, {suspect.path}"
    left = len(set(commitment.suspects) - judged)
    if left:
        notes.append(
            f"{left} of the {len(commitment.suspects)} suspects that the commitment names were not judged here"
        )


def _check_victim(
    folder: Path,
    manifest: Manifest,
    report: AuditReport,
    certificates: "Sequence[Certificate] | None",
    said: _Remarks,
) -> Iterator[str]:
    # Since when the victim has existed, and that a challenge answers what was fixed before.
    challenge = report.suite.challenge
    if VICTIM not in manifest.files:
        if challenge:
            yield f"{VICTIM}: expected the commitment to the victim that the suite's challenge answers, found none"
        if report.dated:
            yield f"{REPORT}: dated: expected a commitment to the victim, found none"
        return
    stamp = _read(folder, VICTIM_STAMP) if VICTIM_STAMP in manifest.files else None
    try:
        victim = load_victim(folder / VICTIM)
        found = dated_entry(victim.data, stamp)
        if stamp and certificates is not None:
            read_response(stamp, victim.data, VICTIM_STAMP, certificates)
    except MissingExtraError as error:
        said.unchecked.append(f"the commitment to the victim was not checked: {error}")
        return
    if victim.terms.model != report.victim.digest:
        yield f"{VICTIM}: expected a commitment to {report.victim.digest}, found one to {victim.terms.model}"
    if challenge and challenge.commitment != victim.digest:
        yield f"{VICTIM}: expected the commitment {challenge.commitment}, which the challenge answers, found another"
    if (report.dated or None) != found:
        yield f"{REPORT}: dated: expected what the commitment and its time-stamp say, found something else"
    if stamp is None:
        said.notes.append("the commitment to the victim has no time-stamp, so nothing shows since when it has existed")
    elif certificates is None:
        said.notes.append(f"the time of the victim is not verified; {option('tsa_certificate')} verifies it")
    if challenge:
        said.claims.append(
            f"the challenge {challenge.value} came after the commitment {challenge.commitment}: who gave it can say"
        )


def _check_register(folder: Path, manifest: Manifest, report: AuditReport, said: _Remarks) -> Iterator[str]:
    if RUNS not in manifest.files:
        return
    register = _read(folder, RUNS)
    try:
        runs = parse_register(register)
    except ValueError as error:
        yield f"{RUNS}: expected a register of runs: {error}"
        return
    last, expected = runs[-1] if runs else None, decided_in(report)
    found = last and (last.suite, last.settings, last.verdicts, last.suspects)
    digests = tuple(digest for digest, _, _ in expected)
    if found != (manifest.terms.suite, digest_of(plain(manifest.terms)), digest_of(expected), digests):
        yield f"{RUNS}: expected this audit on its last line, found another"
    others = len({digest for run in runs[:-1] for digest in run.suspects} - set(digests))
    said.notes.append(
        f"its register has {counted(len(runs), 'run')} of this suite, with {counted(others, 'other suspect')}; only a "
        "time-stamped commitment to its head shows that no earlier run was left out"
    )
    with contextlib.suppress(DeepJudgeError):
        head = load_commitment(folder / COMMITTED).runs if COMMITTED in manifest.files else None
        if head and head_of(register, head.count) != head:
            yield f"{RUNS}: expected to begin with the {head.count} runs that the commitment names, found others"


def _say_chosen(report: AuditReport, said: _Remarks) -> Iterator[str]:
    # What was derived is compared with the rest of the report; this only says it.
    if report.chosen is not UNSET:
        said.notes.append(
            f"options that are not standard: {', '.join(report.chosen)}"
            if report.chosen
            else "all options are standard"
        )
    yield from ()


def _check_stamp(folder: Path, certificates: "Sequence[Certificate] | None", notes: list[str]) -> Stamp:
    stamp = read_response(_read(folder, STAMP), _read(folder, COMMITTED), STAMP, certificates)
    if not stamp.verified:
        notes.append(
            f"the time of the commitment is not verified, so anyone could have set it; "
            f"{option('tsa_certificate', python='certificates=')} verifies it"
        )
    times = [time_of(query) for query in _of(read_log(folder / QUERIES), "suspect") if not query.stored]
    first = min(filter(None, times), default=None)
    if first and first < stamp.time:
        notes.append("according to the log's clock, a suspect was asked before the time of the commitment")
    return stamp


def _check_date(folder: Path) -> Iterator[str]:
    # What the report says of the commitment's time.
    report, _ = read_audit(folder / REPORT)
    found = committed_entry(_read(folder, COMMITTED), _read(folder, STAMP), read_log(folder / QUERIES))
    if report.committed and report.committed != found:
        yield f"{REPORT}: committed: expected what the time-stamp and the log say, found something else"


def _recompute(
    folder: Path,
    manifest: Manifest,
    report: AuditReport,
    values: Json,
    queries: Sequence[Query],
    session: Session,
    said: _Remarks,
) -> Iterator[str]:
    terms, notes = manifest.terms, said.notes
    total = sum(file.size for file in manifest.files.values() if is_secret(file.name))
    if total > LARGEST_ARRAYS:
        yield (f"{MANIFEST}: expected at most {LARGEST_ARRAYS} bytes of answers on this machine, found {total}")
        return
    suite = load_suite(folder / SUITE)
    generators = {generator.name: generator for generator in session.registry.generators.select()}
    yield from (f"{SUITE}: {line}" for line in mistakes_of(suite, generators))
    said.unchecked.extend(f"{SUITE}: {line}" for line in unchecked_of(suite, generators))
    if VICTIM in manifest.files:
        with contextlib.suppress(MissingExtraError):  # which is said elsewhere
            yield from (f"{VICTIM}: {line}" for line in load_victim(folder / VICTIM).terms.mistakes(suite))
    judge = Judge.of(terms.judging.settings, session.registry).fitted(session.registry, Offer.of(suite))
    calibration = judge.load_calibration(folder / CALIBRATION, suite)
    here = Terms.of(suite.digest, calibration, judge)
    if (here.suite, here.calibration) != (terms.suite, terms.calibration):
        yield (f"{MANIFEST}: expected the digests of the suite and the calibration in the bundle, found others")
        return
    observations = [None if name is None else load_observation(folder / name) for name in manifest.observations]
    lines, answered = [*_of(queries, "victim"), *_of(queries, "suspect")], [suite.victim, *observations]
    for query, answers in zip(lines, answered, strict=False):  # as many as there have to be was looked at before
        if answers and not _is_of(query, answers, len(suite.cases.inputs)):
            yield f"{QUERIES}: the line of {query.model} does not match its answers in the bundle"
    yield from _check_names(queries, report, observations, said.claims)
    controls = _of(queries, "control")
    for control in calibration.controls:
        if not any(_is_of(query, control, len(suite.cases.inputs)) for query in controls):
            yield f"{QUERIES}: the control {control.model.name} has no line that matches its answers"
    stored = [answers for answers in observations if answers]
    outcome = judge_suspects(suite, calibration, stored, judge, session=replace(session, sandbox=None))
    again = report_to_json(_as_reported(outcome, observations, report)) | {"deepjudge": report.deepjudge}
    for told in ("made", "committed", "dated", "skipped"):  # which no answer could tell
        again |= {told: values[told]} if told in values else {}
    versions, other_words = terms.differences(here), report.deepjudge != VERSION or PAGE in manifest.files
    reworded: dict[tuple[Any, Any], str] = {}
    for name, metric in again["metrics"].items():
        # Another version may recompute. The terms tell whether it does, and older reports do not say it here.
        reported = values["metrics"].get(name, {})
        for told in ("provider", "title", "says"):
            if told not in reported or versions or other_words:
                ours = metric.pop(told, None)
                metric.update({told: reported[told]} if told in reported else {})
                if told in reported and told != "provider" and ours != reported[told]:
                    reworded.setdefault((ours, reported[told]), f"metrics.{name}.{told}")
    if other_words:
        notes += _other_notes(again["calibration"]["notes"], values["calibration"]["notes"])
        again["calibration"]["notes"] = values["calibration"]["notes"]
    different = [*_differences(again, values, reworded if other_words else None)]
    yield from different
    for (ours, theirs), at in [*reworded.items()][:_MOST_REWORDED]:
        notes.append(f"{REPORT}: {at}: worded {json.dumps(theirs)}; this version says {json.dumps(ours)}")
    if len(reworded) > _MOST_REWORDED:
        notes.append(f"{REPORT}: {len(reworded) - _MOST_REWORDED} more sentences are worded in another way")
    if versions and different:
        notes.append("the bundle was made with other versions, which may explain the differences")
    notes += (f"recomputed with another version: {line}" for line in versions)
    if again != values and not different and not reworded:
        notes.append(
            f"recomputed numbers agree to within {RELATIVE:g} of each, or {ABSOLUTE:g}, but not in every digit"
        )


def _check_names(
    queries: Sequence[Query], report: AuditReport, observations: Sequence[Observation | None], claims: list[str]
) -> Iterator[str]:
    # Answers say which model gave them. Who names a file of stored answers may call it as he likes.
    paths = {suspect.path for suspect in report.suspects}
    for query, suspect, answers in zip(_of(queries, "suspect"), report.suspects, observations, strict=False):
        if answers is None:
            continue
        own = answers.model.name
        if query.stored:
            claims.append(
                f"{suspect.path}: its answers were stored before, and nothing shows that they are the model's"
            )
        if own != suspect.path and (not query.stored or own in paths):
            yield f"{REPORT}: expected the name of the model that answered, {json.dumps(own)}, found {suspect.path}"
        elif own != suspect.path:
            claims.append(f"{suspect.path}: its answers call the model {json.dumps(own)}")


def _as_reported(
    outcome: AuditOutcome, observations: Sequence[Observation | None], report: AuditReport
) -> AuditOutcome:
    # With the names that the user gave, and those that failed in their places.
    results = iter(outcome.suspects)
    suspects = tuple(
        replace(
            replace(next(results), stored=suspect.stored is True)
            if answers
            else SuspectResult(suspect.path, failure=suspect.reason),
            path=suspect.path,
            published=suspect.published or None,
        )
        for suspect, answers in zip(report.suspects, observations, strict=True)
    )
    return replace(outcome, suspects=suspects)


def _of(queries: Sequence[Query], role: str) -> list[Query]:
    return [query for query in queries if query.role == role]


def _is_of(query: Query, answers: Observation, cases: int) -> bool:
    logged = (query.observation, query.digest, query.cases, query.layers, query.requests)
    layers = dict(answers.layer_map)
    return logged == (answers.digest, answers.model.digest, cases, layers, requests_of(answers.exchange))


def _differences(
    recomputed: Any, reported: Any, reworded: dict[tuple[Any, Any], str] | None, at: str = ""
) -> Iterator[str]:
    # What a report says that differs from what was recomputed. Another version may have said the same in other words:
    # then ``reworded`` is there, and takes sentences with the same numbers, so that whoever verifies reads both.
    if isinstance(recomputed, dict) and isinstance(reported, dict):
        for name in {**recomputed, **reported}:
            here = f"{at}.{name}" if at else name
            if name in recomputed and name in reported:
                yield from _differences(recomputed[name], reported[name], reworded, here)
            else:
                yield f"{REPORT}: {here}: {'is missing' if name in recomputed else 'does not belong in this report'}"
    elif isinstance(recomputed, list) and isinstance(reported, list) and len(recomputed) == len(reported):
        for place, pair in enumerate(zip(recomputed, reported, strict=True)):
            yield from _differences(*pair, reworded, f"{at}[{place}]")
    elif reworded is not None and _is_reworded(recomputed, reported, at):
        reworded.setdefault((recomputed, reported), at)
    elif not _agree(recomputed, reported):
        yield (f"{REPORT}: {at}: says {json.dumps(reported)}, recomputed {json.dumps(recomputed)}")


def _other_notes(ours: Sequence[str], theirs: Sequence[str]) -> Iterator[str]:
    # What another version says of the controls, or leaves out, is not compared, so that whoever verifies reads it.
    yield from (f"{REPORT}: calibration.notes: this version adds: {line}" for line in sorted({*ours} - {*theirs}))
    own = sorted({*theirs} - {*ours})
    yield from (
        f"{REPORT}: calibration.notes: says {json.dumps(line)}; this version does not" for line in own[:_MOST_REWORDED]
    )
    if len(own) > _MOST_REWORDED:
        yield f"{REPORT}: calibration.notes: says {len(own) - _MOST_REWORDED} more lines that this version does not"


def _is_reworded(recomputed: Any, reported: Any, at: str) -> bool:
    if not (isinstance(recomputed, str) and isinstance(reported, str) and recomputed != reported):
        return False
    numbers = [sorted(_NUMBER.findall(text)) for text in (recomputed, reported)]
    return at.rpartition(".")[2].partition("[")[0] in _SENTENCES and numbers[0] == numbers[1]


def _agree(recomputed: Any, reported: Any) -> bool:
    if isinstance(recomputed, float) and isinstance(reported, float):
        return math.isclose(recomputed, reported, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(recomputed) is type(reported) and bool(recomputed == reported)


def _read(folder: Path, name: str) -> bytes:
    _refuse_link(folder, name)
    try:
        with open_regular(folder / name, "a file of a bundle", LARGEST_JSON) as file:
            return file.read()
    except OSError as error:
        raise FileFormatError(f"{name}: cannot be read: {error.strerror}", code="cannot-read") from None


def _refuse_link(folder: Path, name: str) -> None:
    path = folder / name
    if path.is_symlink() or (path.parent != folder and path.parent.is_symlink()):
        raise FileFormatError(f"{name}: expected a file of the bundle's own, found a link")


def _within(folder: Path, error: Exception) -> str:
    # By the name in the bundle, as in all findings.
    return str(error).removeprefix(f"{folder}/")
