"""A report as SARIF 2.1.0, which code scanning and its viewers read (docs.oasis-open.org/sarif/sarif/v2.1.0).

Numbers with a paragraph sign are sections of that standard. Made of the report alone.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deepjudge_core.files.documents import plain
from deepjudge_core.report.documents import AuditReport, ControlEntry, SuspectEntry, VictimEntry
from deepjudge_core.report.pages.wording import SIDES, rates, sentence, verdict
from deepjudge_core.text import LONGEST_LINE, clean

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# §3.27.9 and §3.27.10: what is not "fail" has no level. "open": evaluated, and not enough is known to decide.
_KINDS = {"copy": ("fail", "error"), "independent": ("pass", "none")}
_UNDECIDED = ("open", "none")
_Model = VictimEntry | ControlEntry | SuspectEntry


def render(report: AuditReport) -> bytes:
    """A report as a SARIF file; equal reports give equal bytes."""
    return (json.dumps(report_to_sarif(report), indent=2, allow_nan=False) + "\n").encode("ascii")


def report_to_sarif(report: AuditReport) -> dict[str, Any]:
    """A report as a SARIF log: one run, with a result for each suspect."""
    artifacts, places = _artifacts(report)
    rules = list(_rules(report))
    failed = [suspect for suspect in report.suspects if suspect.decision == "failed"]
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "deepjudge", "version": report.deepjudge, "rules": rules}},
                "invocations": [
                    {
                        "executionSuccessful": not failed,
                        "toolExecutionNotifications": [
                            *(_notification("error", suspect.reason, suspect, places) for suspect in failed),
                            *(_notification("warning", note) for note in report.calibration.notes),
                        ],
                    }
                ],
                "artifacts": artifacts,
                "results": [_result(report, suspect, places) for suspect in report.suspects],
                "columnKind": "unicodeCodePoints",
                "properties": {
                    "suite": report.suite.digest,
                    "rule_options": report.rule_options,
                    "groups": report.groups,
                    "limits": report.calibration.limits,
                },
            }
        ],
    }


def _rules(report: AuditReport) -> Iterator[dict[str, Any]]:
    # §3.49. The rule that judges first: results refer to it by its place.
    name = report.rule
    yield {
        "id": _rule_id(report),
        "shortDescription": {"text": _text(f"Whether a model is a copy of the victim, by the rule {name}.")},
        "defaultConfiguration": {"level": "error"},
    }
    groups = {name: metric.group for suspect in report.suspects for name, metric in suspect.metrics.items()}
    for name, group in groups.items():
        text = _RULES.get(group, f"How far the model's answers are from the victim's, by the {group} metric {{}}.")
        text = text.format(name)
        yield {"id": f"metric.{name}", "shortDescription": {"text": _text(text)}}


_RULES = {
    "weights": "How far the model's weights are from the victim's, by the metric {}.",
    "marks": "How many trials of the owner's secret key {} the model matches.",
}


def _rule_id(report: AuditReport) -> str:
    return f"rule.{report.rule}"


def _artifacts(report: AuditReport) -> tuple[list[dict[str, Any]], dict[str, int]]:
    # §3.24, and the place of each by what the user called it.
    artifacts: list[dict[str, Any]] = []
    places: dict[str, int] = {}
    models: list[tuple[_Model, str, list[str]]] = [
        (report.victim, "the victim", []),
        *((control, "a control", []) for control in report.calibration.controls),
        *((suspect, "a suspect", ["analysisTarget"]) for suspect in report.suspects),
    ]
    for model, what, roles in models:
        if model.path in places:
            continue
        place = places[model.path] = len(artifacts)
        files = model.files
        kind = ["directory"] if files and not _is_file(model) else []
        digests = {"digest": model.digest, "model_signing": model.model_signing}
        artifacts.append(
            {
                "location": {"uri": _uri(model.path), "index": place},
                "description": {"text": what},
                "properties": {name: value for name, value in digests.items() if value},
                **({"roles": [*roles, *kind]} if roles or kind else {}),
                **_hashes(files.get("."), files.get(Path(model.path).name)),
            }
        )
        for name, sha256 in files.items():
            if name not in (".", Path(model.path).name):
                folder = model.path if kind else str(Path(model.path).parent)
                inner = {"parentIndex": place} if kind else {}
                artifacts.append({"location": {"uri": _uri(f"{folder}/{name}")}, **inner, **_hashes(sha256)})
    return artifacts, places


def _is_file(model: _Model) -> bool:
    # Alone, or with weights in other files beside it.
    return "." in model.files or Path(model.path).name in model.files


def _hashes(*candidates: str | None) -> dict[str, Any]:
    # §3.24.11: of a file's bytes only; names of hash functions as IANA has them.
    return next(({"hashes": {"sha-256": sha256}} for sha256 in candidates if sha256), {})


def _result(report: AuditReport, suspect: SuspectEntry, places: Mapping[str, int]) -> dict[str, Any]:
    kind, level = _KINDS.get(suspect.decision, _UNDECIDED)
    # §3.27.17: what makes it the same result again, in another run.
    prints = {"suspect/v1": suspect.digest, "victim/v1": report.victim.digest, "rule/v1": report.rule}
    return {
        "ruleId": _rule_id(report),
        "ruleIndex": 0,
        "kind": kind,
        "level": level,
        "message": {"text": _text(" ".join(_said(report, suspect)))},
        "locations": [_location(suspect.path, places)],
        "partialFingerprints": {name: value for name, value in prints.items() if value},
        "properties": {
            name: plain(getattr(suspect, name))
            for name in ("decision", "points_to", "reason", "settings", "metrics", "accuracy_on_seeds", "notes")
        },
    }


def _said(report: AuditReport, suspect: SuspectEntry) -> Iterator[str]:
    # The verdict, how often such a one is wrong, and what it does not say.
    yield f"{clean(suspect.path)}: {verdict(suspect, report)}"
    for name, setting in suspect.settings.named().items():
        if setting.statement:
            yield sentence(f"by {SIDES[name]}: {setting.statement}")
    if suspect.decision in ("copy", "independent"):
        yield from rates(report)
    if suspect.decision == "copy":
        yield from (sentence(f"not excluded: {limit}") for limit in report.calibration.limits)


def _notification(
    level: str, text: str | None, suspect: SuspectEntry | None = None, places: Mapping[str, int] | None = None
) -> dict[str, Any]:
    # §3.58
    where = {"locations": [_location(suspect.path, places)]} if suspect and places else {}
    return {"level": level, "message": {"text": _text(text or "")}, **where}


def _location(path: str, places: Mapping[str, int]) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(path), "index": places[path]}}}


def _uri(path: str) -> str:
    # §3.4.3: as it was typed, relative where that was, and any byte that a name may have.
    name = quote(path.encode("utf-8", "surrogateescape" if _is_name(path) else "replace"))
    absolute = os.path.isabs(path)  # noqa: PTH117 - a Path would take slashes away
    return f"file://{name}" if absolute else name or "."


def _is_name(path: str) -> bool:
    # Whether a file can have it; JSON can hold others.
    return not any("\ud800" <= character <= "\udfff" and not "\udc80" <= character <= "\udcff" for character in path)


def _text(text: str) -> str:
    # §3.11.5 and §3.11.6: braces stand for arguments, and brackets for links.
    shown = clean(text, LONGEST_LINE)
    return shown.replace("{", "{{").replace("}", "}}").replace("[", "\\[").replace("]", "\\]")
