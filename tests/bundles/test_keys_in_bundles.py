"""Keys and bundles: kept with the suite, read again without any model, and never in what is handed over without it."""

import json
from dataclasses import replace
from pathlib import Path

import marked
import pytest
from authority import OPENSSL, Authority
from bundling import reseal
from commands import HOW, MADE, Cli
from snapshots import Snapshots

from deepjudge_core.bundles.verify import verify_bundle
from deepjudge_core.components.schemes import Key
from deepjudge_core.files import storage
from deepjudge_core.report.documents import read_report
from deepjudge_core.report.html import render_html
from deepjudge_core.suites.suite import load_suite, save_suite

SUITE = ("suite", "victim.toy", "--inputs", "in.npz", *MADE, "--key", "adi.key.safetensors", "-o", "s.safetensors")
STAMPED = ("--commitment", "commitment.json", "--tsa-response", "commitment.tsr")
JUDGED = ("judge", "s.safetensors", "copy.toy", "honest.toy", *HOW, "--calibration", "c.safetensors")


@pytest.fixture
def keyed(cli: Cli, snapshots: Snapshots) -> Cli:
    """A suite with a key, and a calibration."""

    def make() -> None:
        marked.write_networks(cli.folder)
        assert cli(*SUITE)[0] == 0
        assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0

    snapshots.fill("keyed", cli.folder, make)
    return cli


def key() -> Key:
    return load_suite(Path("s.safetensors")).keys[0]


def secrets(one: Key) -> list[bytes]:
    """What must be nowhere: the nonce, and labels and inputs as JSON, as text and as they are in memory."""
    labels = [int(label) for label in one.labels]
    dumped = json.dumps(labels)
    tight = json.dumps(labels, separators=(",", ":"))
    raw = [one.nonce, one.labels.tobytes(), one.inputs[0].tobytes()]
    return [one.nonce.hex().encode(), dumped.encode(), tight.encode(), *raw]


def test_a_bundle_without_observations_has_nothing_of_a_key(keyed: Cli) -> None:
    assert keyed(*JUDGED, "-o", "out", "--without-observations")[0] == 1
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"manifest.json", "report.json", "report.html", "queries.jsonl"}
    for secret in secrets(key()):
        assert not [path for path in files if secret in path.read_bytes()]
    suite = Path("out-withheld/suite.safetensors").read_bytes()
    assert sum(secret in suite for secret in secrets(key())) == 3  # the nonce, the labels, the inputs
    report = json.loads(Path("out/report.json").read_text())
    assert report["suspects"][0]["metrics"]["adi"]["found"] == 24
    assert verify_bundle(Path("out")).findings == ()
    for log in Path("out-withheld").rglob("*.safetensors"):
        (Path("out") / log.relative_to("out-withheld")).parent.mkdir(exist_ok=True)
        log.rename(Path("out") / log.relative_to("out-withheld"))
    assert verify_bundle(Path("out")).recomputed == 2


def test_marks_are_recomputed(keyed: Cli) -> None:
    assert keyed(*JUDGED, "-o", "out")[0] == 1
    assert verify_bundle(Path("out")).recomputed == 2
    report = json.loads(Path("out/report.json").read_text())
    report["suspects"][1]["metrics"]["adi"]["found"] += 1
    Path("out/report.json").write_text(json.dumps(report, indent=2) + "\n")
    reseal()
    found = verify_bundle(Path("out"))
    assert not found.verified
    assert any("report.html" in line or "adi.found" in line for line in found.findings)


def test_a_key_that_was_changed_is_noticed(keyed: Cli) -> None:
    assert keyed(*JUDGED, "-o", "out")[0] == 1
    suite = Path("out/suite.safetensors")
    content = storage.read(suite, ["suite"])
    name = next(name for name in content.arrays if name.endswith("labels") and name.startswith("key"))
    arrays = {**content.arrays, name: (content.arrays[name] + 1) % 4}
    storage.write(suite, storage.seal("suite", content.header, arrays))
    reseal()
    found = verify_bundle(Path("out"))
    assert not found.verified
    assert any("suite.safetensors" in line for line in found.findings)


def test_another_nonce_is_another_suite(keyed: Cli) -> None:
    assert keyed(*JUDGED, "-o", "out")[0] == 1
    held = load_suite(Path("out/suite.safetensors"))
    other = replace(held.keys[0], nonce=bytes(32)).completed()
    save_suite(Path("out/suite.safetensors"), replace(held, keys=(other,)))
    reseal()
    assert not verify_bundle(Path("out")).verified


def test_stored_answers_hold_what_keys_read(keyed: Cli) -> None:
    assert keyed("observe", "s.safetensors", "copy.toy", "-o", "o.safetensors")[0] == 0
    status, out, _ = keyed(
        "judge", "s.safetensors", "o.safetensors", "--stored", *HOW, "--calibration", "c.safetensors"
    )
    assert status == 1
    assert "24 of 24" in out
    assert keyed("show", "s.safetensors")[0] == 0
    assert keyed("judge", "s.safetensors", "o.safetensors", "--stored", *HOW, "--json", "r.json")[0] == 1
    status, out, _ = keyed("show", "r.json")
    assert (status, "24 of 24, p = " in out) == (0, True)


@pytest.mark.skipif(OPENSSL is None, reason="openssl, which is the authority, is not installed")
def test_the_report_says_since_when_a_key_is_committed_to(keyed: Cli) -> None:
    committing = ("commit", "s.safetensors", "c.safetensors", *HOW, "--tsa-request", "q.tsq", "-o", "commitment.json")
    assert keyed(*committing)[0] == 0
    Authority.make(Path("authority")).answer("q.tsq", "commitment.tsr")
    assert keyed(*JUDGED, *STAMPED, "-o", "out")[0] == 1
    report = json.loads(Path("out/report.json").read_text())
    assert report["committed"]["before"] is True
    page = Path("out/report.html").read_text()
    assert report["committed"]["date"][:10] in page
    assert "2^40 tries to find" not in page
    assert verify_bundle(Path("out")).verified
    report["committed"]["date"] = "2020-01-01T00:00:00Z"
    Path("out/report.json").write_text(json.dumps(report, indent=2) + "\n")
    Path("out/report.html").write_bytes(render_html(read_report(Path("out/report.json"))))
    reseal()
    assert [line for line in verify_bundle(Path("out")).findings if "committed" in line]
