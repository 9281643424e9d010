"""Bundles and commitments: what is changed is found and named, without a model and without a framework."""

import base64
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from bundling import FRAMEWORKS, MODELS, elsewhere, flip, ready, reseal
from commands import HOW, MADE, Cli
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT
from refusals import expect_facts
from snapshots import Snapshots

from deepjudge_core.bundles import signing
from deepjudge_core.bundles.commitment import Terms
from deepjudge_core.bundles.statement import File, Statement
from deepjudge_core.bundles.verify import verify_bundle
from deepjudge_core.files import storage
from deepjudge_core.files.documents import parse
from deepjudge_core.files.reading import LARGEST_JSON
from deepjudge_core.judging.calibration import load_calibration, save_calibration
from deepjudge_core.suites.observation import load_observation, save_observation
from deepjudge_core.suites.suite import load_suite

__all__ = ["ready"]
FILES = {
    "calibration.safetensors",
    "commitment.json",
    "environment.json",
    "manifest.json",
    "observations/suspect-0001.safetensors",
    "observations/suspect-0002.safetensors",
    "queries.jsonl",
    "report.html",
    "report.json",
    "runs.jsonl",
    "signature.json",
    "suite.safetensors",
}
SECRET = {name for name in FILES if name.endswith(".safetensors")}


@pytest.fixture
def bundled(ready: Cli, snapshots: Snapshots) -> Cli:
    """The same with the bundle of an audit, signed and committed to, in `out`."""

    def make() -> None:
        evidence = ("--commitment", "commitment.json", "--key", "owner.pem")
        status, _, err = ready("audit", *MODELS, *HOW, *evidence, "-o", "out")
        assert (status, err) == (1, "")  # broken.toy hides no copy

    snapshots.fill("bundle", ready.folder, make)
    return ready


JUDGED = ("judge", "s.safetensors", *MODELS[1 : MODELS.index("--controls")], "--calibration", "c.safetensors", *HOW)
SEALED = ("--commitment", "commitment.json", "--key", "owner.pem")


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def findings(folder: str = "out", key: str | None = None) -> tuple[str, ...]:
    return verify_bundle(Path(folder), key).findings


def unchecked(folder: str = "out") -> tuple[str, ...]:
    return verify_bundle(Path(folder)).unchecked


# Statements and signatures.


def test_the_encoding_is_that_of_the_specification() -> None:
    # protocol.md of DSSE, "Test Vectors".
    found = signing.encode(b"hello world", "http://example.com/HelloWorld")
    assert found == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_a_signature_is_that_of_rfc_8032(ready: Cli) -> None:
    # Section 7.1, TEST 1: its key and its signature of nothing.
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = Ed25519PrivateKey.from_private_bytes(secret)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    Path("rfc.pem").write_bytes(pem)
    signer = signing.load_signer(Path("rfc.pem"))
    assert signer.public == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert signer.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")


def test_a_signature_is_checked_by_others(bundled: Cli) -> None:
    envelope = json.loads(Path("out/signature.json").read_text())
    payload = base64.b64decode(envelope["payload"])
    assert payload == Path("out/manifest.json").read_bytes()
    kind = envelope["payloadType"]
    [signature] = envelope["signatures"]
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    key = serialization.load_pem_public_key(Path("owner.pub").read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    key.verify(base64.b64decode(signature["sig"]), signed)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_a_statement_is_one_text(data: st.DataObject) -> None:
    sha = hashlib.sha256(b"").hexdigest()
    values = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5), st.lists, max_leaves=5)
    predicate = data.draw(st.dictionaries(st.text(max_size=5).filter(lambda k: k != "sha256"), values, max_size=4))
    made = Statement("urn:x", (File("a", sha, 3), File("b", sha, 0)), predicate)
    text = made.dump()
    assert Statement.parse(text, "urn:x") == made
    place, bit = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(text)
    changed[place] ^= 1 << bit
    with pytest.raises(ValueError):  # noqa: PT011
        Statement.parse(bytes(changed), "urn:x")


# Bundles of what was judged by files that were made before.


def test_judge_writes_the_bundle_of_an_audit(bundled: Cli) -> None:
    status, out, err = bundled(*JUDGED, *SEALED, "-o", "judged")
    assert (status, err) == (1, "")  # broken.toy hides no copy
    assert out.splitlines()[-2:] == ["report: judged/report.json", "page: judged/report.html"]
    assert findings("judged") == ()
    assert verify_bundle(Path("judged")).recomputed == verify_bundle(Path("out")).recomputed > 0
    assert names(Path("judged")) == names(Path("out"))
    # What was asked before is read, and the log says so; all else is the same.
    changed = {"queries.jsonl", "runs.jsonl", "manifest.json", "signature.json", "report.html"}
    for name in names(Path("out")) - changed:
        assert (Path("judged") / name).read_bytes() == (Path("out") / name).read_bytes()
    queries = [json.loads(line) for line in Path("judged/queries.jsonl").read_text().splitlines()]
    assert [(query["role"], query["stored"]) for query in queries[:2]] == [("victim", True), ("control", True)]
    assert {query["stored"] for query in queries if query["role"] == "suspect"} == {False}
    # Once more, in its own place and for the other side.
    assert bundled(*JUDGED, *SEALED, "--without-observations", "-o", "judged")[0] == 1
    assert findings("judged") == ()
    assert not (Path("judged") / "suite.safetensors").exists()
    assert (Path("judged-withheld") / "suite.safetensors").exists()


def test_what_judge_refuses_of_bundles(bundled: Cli) -> None:
    bundled.refuses(2, "conflict", *JUDGED, "--key", "owner.pem", facts=("--key", "-o DIR"))
    bundled.refuses(2, "conflict", *JUDGED, "--without-observations", facts=("--without-observations", "-o DIR"))
    inside = ("judge", "out/suite.safetensors", *JUDGED[2:], "-o", "out")
    bundled.refuses(2, "would-overwrite", *inside, facts=("out/suite.safetensors: ", "outside out"))
    answers = "out/observations/suspect-0001.safetensors"
    stored = (*inside[:1], "s.safetensors", answers, "-o", "out")
    bundled.refuses(2, "would-overwrite", *stored, facts=(f"{answers}: ", "outside out"))
    exported = (*JUDGED, "--json", "out/r.json", "-o", "out")
    bundled.refuses(2, "would-overwrite", *exported, facts=("out/r.json: ", "outside out"))
    one_by_one = ("judge", "s.safetensors", "copy.toy", "--calibration", "c.safetensors", "--sequential")
    bundled.refuses(2, "conflict", *one_by_one, "-o", "new", facts=("--sequential", "-o"))
    assert findings() == ()


def test_an_audit_removes_no_answers_that_it_is_going_to_read(bundled: Cli) -> None:
    stored = "out/observations/suspect-0001.safetensors"
    again = ("audit", "victim.toy", stored, "--stored", *MODELS[MODELS.index("--controls") :], *HOW, "-o")
    bundled.refuses(2, "would-overwrite", *again, "out", facts=(f"{stored}: ", "outside"))
    assert findings() == ()
    assert bundled(*again, "new")[0] == 1


# Commitments.


def test_a_commitment(ready: Cli) -> None:
    envelope = json.loads(Path("commitment.json").read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    for subject, path in zip(statement["subject"], ("s.safetensors", "c.safetensors"), strict=True):
        assert subject["digest"]["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    terms = statement["predicate"]["terms"]
    assert terms["suite"] == load_suite(Path("s.safetensors")).digest
    assert terms["calibration"] == storage.read(Path("c.safetensors"), ["calibration"]).digest
    assert terms["judging"] == {
        "metrics": ["answers", "surety", "outputs"],
        "rule": "nearest",
        "rule_options": {"share": 0.5, "alpha": {}},
        "groups": "separate",
    }
    assert terms["components"] == dict.fromkeys(
        ("metric answers", "metric surety", "metric outputs", "rule nearest"), "toys 1.0"
    )
    assert str(ready.folder) not in json.dumps(statement)
    # Equal bytes; and without a key the statement alone.
    before = Path("commitment.json").read_bytes()
    ready("commit", "s.safetensors", "c.safetensors", *HOW, "--key", "owner.pem", "-o", "commitment.json")
    assert Path("commitment.json").read_bytes() == before
    assert ready("commit", "s.safetensors", "c.safetensors", *HOW, "-o", "unsigned.json")[0] == 0
    assert json.loads(Path("unsigned.json").read_text()) == statement


@pytest.mark.parametrize(
    ("command", "over"),
    [
        (("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o"), "victim.toy"),
        (("observe", "s.safetensors", "copy.toy", "-o"), "copy.toy"),
        (("calibrate", "s.safetensors", "--stratum", "same-data=copy.toy", "-o"), "./copy.toy"),
        (("judge", "s.safetensors", "copy.toy", "--calibration", "c.safetensors", "--json"), "c.safetensors"),
        (("commit", "s.safetensors", "c.safetensors", "--key", "owner.pem", "-o"), "owner.pem"),
        (("commit", "s.safetensors", "c.safetensors", "-o", "new.json", "--tsa-request"), "s.safetensors"),
    ],
)
def test_what_is_read_is_not_written_over(ready: Cli, command: tuple[str, ...], over: str) -> None:
    ready.refuses(2, "would-overwrite", *command, over, facts=(f"deepjudge: {Path(over)}: ", "one of the inputs"))


def test_a_commitment_and_its_request_are_two_files(ready: Cli) -> None:
    command = ("commit", "s.safetensors", "--tsa-request", "new.json", "-o", "./new.json")
    ready.refuses(2, "would-overwrite", *command, facts=("new.json: ", "commitment", "request"))


@pytest.mark.parametrize("committed", ["commitment.json", "unsigned.json"])
def test_what_was_committed_to_is_judged(ready: Cli, committed: str) -> None:
    ready("commit", "s.safetensors", "c.safetensors", *HOW, "-o", "unsigned.json")
    arguments = ("s.safetensors", "copy.toy", *HOW, "--calibration", "c.safetensors", "--commitment", committed)
    assert ready("judge", *arguments)[0] == 1


OTHER_TERMS: dict[str, tuple[Callable[[], object], tuple[str, ...], tuple[str, ...]]] = {
    "rule": (lambda: None, ("--rule", "voting"), ("judging.rule", "judging.rule_options.bound")),
    "option": (
        lambda: None,
        ("--rule-option", "share=0.6"),
        ("judging.rule_options.share: committed to 0.5, found 0.6",),
    ),
    "groups": (lambda: None, ("--groups", "joint"), ('judging.groups: committed to "separate", found "joint"',)),
    "metrics": (lambda: None, ("--metric", "jsd"), ("judging.metrics",)),
    "layers": (lambda: None, ("--require-layers",), ("judging.require_layers: committed to nothing, found true",)),
    "suite": (lambda: shutil.copy("s2.safetensors", "s.safetensors"), (), ("suite", "calibration")),
    "calibration": (lambda: shutil.copy("c2.safetensors", "c.safetensors"), (), ("calibration",)),
}


@pytest.mark.parametrize("other", OTHER_TERMS)
def test_other_terms_are_refused(ready: Cli, other: str) -> None:
    change, more, expected = OTHER_TERMS[other]
    ready("calibrate", "s.safetensors", "controls/c[123].toy", "-o", "c2.safetensors")
    if other == "suite":
        ready("suite", "victim.toy", "--inputs", "in.npz", *MADE, "--seed", "1", "-o", "s2.safetensors")
        ready("calibrate", "s2.safetensors", "controls", "-o", "c.safetensors")
    change()
    arguments = ("s.safetensors", "copy.toy", *HOW, *more, "--calibration", "c.safetensors")
    assert ready("judge", *arguments)[0] in (0, 1, 3)
    status, out, err = ready("judge", *arguments, "--commitment", "commitment.json", "--json", "never.json")
    assert (status, out) == (2, "")
    assert not Path("never.json").exists()
    lines = err.splitlines()
    assert all(re.match(r"deepjudge: [\w. ]+: committed to .*, found ", line) for line in lines)
    assert all(line.endswith(" (other-than-committed)") for line in lines)
    for difference in expected:
        assert sum(line.startswith(f"deepjudge: {difference}") for line in lines) >= 1
    if len(expected) == 1:
        assert len(lines) == 1


def test_other_versions_are_refused(ready: Cli) -> None:
    metadata = Path("toys-1.0.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    arguments = ("s.safetensors", "copy.toy", *HOW, "--calibration", "c.safetensors", "--commitment", "commitment.json")
    status, _, err = ready("judge", *arguments)
    assert status == 2
    assert 'components.rule nearest: committed to "toys 1.0", found "toys 1.1"' in err


def test_controls_that_were_not_committed_to(ready: Cli) -> None:
    ready("commit", "s.safetensors", *HOW, "-o", "without.json")
    judged = ("judge", "s.safetensors", "copy.toy", *HOW, "--commitment", "without.json")
    assert ready(*judged)[0] == 3
    facts = ("calibration: ", "nothing")
    ready.refuses(2, "other-than-committed", *judged, "--calibration", "c.safetensors", facts=facts)


def test_an_audit_keeps_to_its_commitment(ready: Cli) -> None:
    audit = ("audit", *MODELS, "--commitment", "commitment.json", "-o", "out")
    # Settings before the victim is run, the suite before controls are asked, controls before suspects are.
    status, out, err = ready(*audit, *HOW, "--rule-option", "share=0.6")
    assert (status, out) == (2, "")
    status, out, err = ready(*audit, *HOW, "--seed", "1")
    assert status == 2
    assert err.startswith("deepjudge: suite: committed to ")
    assert err.splitlines()[-1].startswith("deepjudge: an audit makes a new suite and calibration")
    assert not Path("out/queries.jsonl").exists()
    Path("controls/c4.toy").unlink()
    status, out, err = ready(*audit, *HOW)
    assert status == 2
    assert err.startswith("deepjudge: calibration: committed to ")
    assert "suspect" not in Path("out/queries.jsonl").read_text()
    assert not Path("out/report.json").exists()


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "commitment"),
        (b"{}", "in-toto statement"),
        (b'{"payload": ""}', "DSSE envelope"),
        (b"[" * 999, "commitment"),
        (b"\xff", "commitment"),
    ],
)
def test_a_commitment_that_is_none(ready: Cli, content: bytes, fact: str) -> None:
    Path("bad.json").write_bytes(content)
    judged = ("judge", "s.safetensors", "copy.toy", *HOW, "--commitment", "bad.json")
    ready.refuses(4, "damaged-file", *judged, facts=("bad.json: ", fact))


def test_a_commitment_that_was_changed(ready: Cli) -> None:
    data = Path("commitment.json").read_bytes()
    for place in range(0, len(data), len(data) // 60):
        Path("commitment.json").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        judged = ("judge", "s.safetensors", "copy.toy", *HOW, "--commitment", "commitment.json")
        ready.refuses(4, "damaged-file", *judged, facts=("commitment.json: ",))


@pytest.mark.parametrize("name", ["other.pub", "in.npz", "missing.pem", "controls", "encrypted.pem", "ed448.pem"])
def test_a_key_that_is_none(ready: Cli, name: str) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey

    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(b"secret")
    Path("encrypted.pem").write_bytes(Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, locked))
    plain = serialization.NoEncryption()
    Path("ed448.pem").write_bytes(Ed448PrivateKey.generate().private_bytes(pem, pkcs8, plain))
    code = "cannot-read" if name in ("missing.pem", "controls") else "wrong-value"
    for command in (("commit", "s.safetensors"), ("audit", *MODELS, *HOW)):
        ready.refuses(2, code, *command, "--key", name, "-o", "never", facts=(f"{name}: ",))


# Bundles.


def test_a_bundle(bundled: Cli) -> None:
    folder = Path("out")
    assert names(folder) == FILES
    manifest = json.loads((folder / "manifest.json").read_text())
    beside = {"manifest.json", "signature.json", "report.html"}
    assert {subject["name"] for subject in manifest["subject"]} == FILES - beside
    for subject in manifest["subject"]:
        data = (folder / subject["name"]).read_bytes()
        assert subject["digest"] == {"sha256": hashlib.sha256(data).hexdigest()}
        assert subject["annotations"] == {"size": len(data)}
    status, out, err = bundled("verify", "out", "--public-key", "owner.pub")
    assert (status, err) == (3, "")  # only a model can show that broken.toy failed
    assert out.splitlines()[-1].endswith(", 2 verdicts recomputed")
    assert f"manifest    {hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()}\n" in out
    assert "unchecked   broken.toy is said to have failed" in out
    assert "digits" not in out
    # Nothing that says whose machine it is.
    environment = (folder / "environment.json").read_text()
    for secret in (os.uname().nodename, str(bundled.folder), str(Path.home()), sys.prefix):
        assert secret not in environment
    for name in FILES:
        assert str(bundled.folder).encode() not in (folder / name).read_bytes()


def test_the_log(bundled: Cli) -> None:
    lines = Path("out/queries.jsonl").read_bytes().splitlines()
    before, found = "0" * 64, []
    for line in lines:
        query = json.loads(line)
        assert query["previous"] == before
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", query["time"])
        before = hashlib.sha256(line).hexdigest()
        found.append((query["role"], query["model"], query["stored"], query["failure"]))
        assert query["cases"] == len(load_suite(Path("out/suite.safetensors")).cases.inputs)
    controls = [("control", f"controls/c{seed}.toy", False, None) for seed in (1, 2, 3, 4)]
    failure = "broken.toy: expected a toy model, found no JSON"
    assert found == [
        ("victim", "victim.toy", False, None),
        *controls,
        ("suspect", "copy.toy", False, None),
        ("suspect", "honest.toy", False, None),
        ("suspect", "broken.toy", False, failure),
    ]
    seen = load_observation(Path("out/observations/suspect-0001.safetensors"))
    assert json.loads(lines[5])["observation"] == seen.digest
    assert json.loads(lines[5])["digest"] == seen.model.digest


def test_each_file_and_key_is_documented(bundled: Cli) -> None:
    page = (ROOT / "docs" / "reference" / "bundle.md").read_text("utf-8")
    manifest = json.loads(Path("out/manifest.json").read_text())
    commitment = json.loads(base64.b64decode(json.loads(Path("commitment.json").read_text())["payload"]))
    keys = {*manifest["predicate"], *manifest["predicate"]["terms"], *manifest["predicate"]["terms"]["judging"]}
    keys |= set(json.loads(Path("out/queries.jsonl").read_text().splitlines()[0]))
    kinds = {manifest["predicateType"], commitment["predicateType"]}
    known = {name for name in FILES if not name.endswith("2.safetensors")}
    assert not {word for word in keys | kinds | known if f"`{word}`" not in page}


def test_all_but_the_times_is_the_same_again(bundled: Cli) -> None:
    before = {name: (Path("out") / name).read_bytes() for name in FILES}
    evidence = ("--commitment", "commitment.json", "--key", "owner.pem")
    bundled("audit", *MODELS, *HOW, *evidence, "-o", "out")
    other = {name for name in FILES if (Path("out") / name).read_bytes() != before[name]}
    assert other <= {"queries.jsonl", "runs.jsonl", "manifest.json", "signature.json", "report.html"}


def test_an_earlier_bundle_is_no_part_of_the_next(bundled: Cli) -> None:
    audit = ("audit", "victim.toy", "copy.toy", "--controls", "controls", "--inputs", "in.npz", *MADE, *HOW)
    assert bundled(*audit, "-o", "out")[0] == 1
    assert names(Path("out")) == FILES - {
        "commitment.json",
        "signature.json",
        "observations/suspect-0002.safetensors",
    }
    assert bundled("verify", "out")[0] == 0


def test_stored_observations_are_taken_as_such(ready: Cli) -> None:
    ready("observe", "s.safetensors", "copy.toy", "-o", "seen.safetensors")
    given = ("seen.safetensors", "--stored", "--controls", "controls", "--inputs", "in.npz")
    audit = ("audit", "victim.toy", *given, *MADE, *HOW)
    assert ready(*audit, "-o", "out")[0] == 1
    query = json.loads(Path("out/queries.jsonl").read_text().splitlines()[-1])
    assert (query["model"], query["stored"]) == ("seen.safetensors", True)
    assert Path("out/observations/suspect-0001.safetensors").read_bytes() == Path("seen.safetensors").read_bytes()
    assert findings() == ()
    status, out, _ = ready("verify", "out")
    assert (status, "1 of 1" in out, "seen.safetensors" in out) == (0, True, True)


def test_answers_to_another_suite_are_recomputed_as_a_failure(ready: Cli) -> None:
    ready("suite", "victim.toy", "--inputs", "in.npz", *MADE, "--seed", "1", "-o", "s2.safetensors")
    ready("observe", "s2.safetensors", "copy.toy", "-o", "seen.safetensors")
    given = ("seen.safetensors", "--stored", "--controls", "controls", "--inputs", "in.npz")
    audit = ("audit", "victim.toy", *given, *MADE, *HOW)
    assert ready(*audit, "-o", "out")[0] == 4
    assert ready("verify", "out")[0] == 0


def test_an_audit_without_controls(ready: Cli) -> None:
    audit = ("audit", "victim.toy", "copy.toy", "--inputs", "in.npz", *MADE, *HOW, "-o", "out")
    assert ready(*audit)[0] == 3
    assert ready("verify", "out")[0] == 0


def test_a_suspect_that_is_a_control_is_recomputed_as_such(ready: Cli) -> None:
    audit = ("audit", "victim.toy", "controls/c1.toy", "--controls", "controls", "--inputs", "in.npz", *MADE, *HOW)
    assert ready(*audit, "-o", "out")[0] == 4
    assert ready("verify", "out")[0] == 0


# Without what is the victim's own.


def test_without_observations(ready: Cli) -> None:
    evidence = ("--commitment", "commitment.json", "--key", "owner.pem", "--without-observations")
    status, out, _ = ready("audit", *MODELS, *HOW, *evidence, "-o", "out")
    assert (status, "withheld: out-withheld: " in out) == (1, True)
    assert names(Path("out")) == FILES - SECRET
    assert names(Path("out-withheld")) == SECRET
    status, out, _ = ready("verify", "out", "--public-key", "owner.pub")
    assert (status, out.splitlines()[-1].endswith(", no verdict recomputed")) == (3, True)
    # No test case and no answer is in it, in whatever form.
    suite = load_suite(Path("out-withheld/suite.safetensors"))
    text = b"".join((Path("out") / name).read_bytes() for name in FILES - SECRET)
    for array in (suite.cases.inputs, suite.victim.probabilities):
        for value in np.unique(array[(array != 0) & (array != 1)])[:50]:
            assert value.tobytes() not in text
            assert repr(float(value)).encode() not in text
    # Put back, all can be checked; a part of it is not enough.
    shutil.copy("out-withheld/suite.safetensors", "out")
    assert ready("verify", "out")[1].splitlines()[-1].endswith(", no verdict recomputed")
    shutil.copytree("out-withheld", "out", dirs_exist_ok=True)
    assert ready("verify", "out")[1].splitlines()[-1].endswith(", 2 verdicts recomputed")
    flip(Path("out/suite.safetensors"), 3000)
    assert [line.split(":")[0] for line in findings()] == ["suite.safetensors"]


@pytest.mark.parametrize("role", ["victim", "control", "suspect"])
def test_who_was_asked_is_checked_without_observations(ready: Cli, role: str) -> None:
    """Sealed anew, too: the digests are in the report and in the log."""
    assert ready("audit", *MODELS, *HOW, "--without-observations", "-o", "out")[0] == 1
    assert findings() == ()

    def other(queries: list[dict[str, Any]]) -> None:
        next(query for query in queries if query["role"] == role)["digest"] = "0" * 64

    rechain(other)
    reseal()
    [line] = findings()
    assert line.startswith(f"queries.jsonl: a {role} of the report")


def test_controls_that_nobody_asked_without_observations(ready: Cli) -> None:
    assert ready("audit", *MODELS, *HOW, "--without-observations", "-o", "out")[0] == 1
    rechain(lambda queries: queries.remove(next(query for query in queries if query["role"] == "control")))
    reseal()
    [line] = findings()
    assert "a control of the report" in line
    edit_report(lambda report: report.update(calibration=[], victim=None))
    reseal()
    [line] = findings()
    assert line.startswith("report.json: victim: ")


# What was changed.


def places(size: int) -> Iterator[int]:
    """Some of a file's bytes: the first, the last and others between."""
    yield from sorted({0, 1, 7, 8, size - 2, size - 1, *range(0, size, max(1, size // 40))})


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_bit_is_found_and_named(bundled: Cli, name: str) -> None:
    path = Path("out") / name
    data = path.read_bytes()
    for place in places(len(data)):
        flip(path, place)
        found = findings()
        assert found, place
        assert {line.split(":")[0] for line in found} <= {
            name,
            *(["signature.json"] if name == "manifest.json" else []),
        }
        path.write_bytes(data)
    assert findings() == ()


def test_the_command_names_what_was_changed(bundled: Cli) -> None:
    flip(Path("out/report.json"), 99)
    status, out, err = bundled("verify", "out")
    assert (status, err) == (4, "")
    assert "wrong       report.json: was changed (its SHA-256 does not match)\n" in out
    assert out.splitlines()[-1] == "out: NOT verified"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_is_missing_or_cut_is_named(bundled: Cli, name: str) -> None:
    path = Path("out") / name
    data = path.read_bytes()
    changes = [path.unlink, lambda: path.write_bytes(data[:-1]), lambda: path.write_bytes(data + b"\n")]
    for change in changes[name == "report.html" :]:  # which is made again from the report
        change()
        found = findings()
        assert found
        assert all(line.startswith(f"{name}: ") for line in found)
        path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["more.txt", "observations/suspect-0003.safetensors", "observations/.hidden", ".hidden", "sub/file"]
)
def test_a_file_more_is_named(bundled: Cli, name: str) -> None:
    path = Path("out") / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    assert findings() == (f"{name.removesuffix('/file')}: is not in the manifest",)


def test_files_that_changed_their_names(bundled: Cli) -> None:
    one, other = (Path(f"out/observations/suspect-000{number}.safetensors") for number in (1, 2))
    one.rename("kept")
    other.rename(one)
    Path("kept").rename(other)
    assert len(findings()) == 2
    assert all("observations/suspect-000" in line for line in findings())
    shutil.move("out/observations/suspect-0001.safetensors", "out/observations/suspect-0009.safetensors")
    assert any("suspect-0009.safetensors: is not in the manifest" in line for line in findings())


@pytest.mark.parametrize(
    "name", ["report.json", "manifest.json", "signature.json", "observations", "suite.safetensors"]
)
def test_links_are_refused(bundled: Cli, name: str) -> None:
    path = Path("out") / name
    path.rename("elsewhere")
    path.symlink_to(Path("elsewhere").absolute())
    assert findings()
    assert any(name in line for line in findings())


@pytest.mark.parametrize("name", sorted(FILES))
def test_pipes_and_folders_are_refused(bundled: Cli, name: str) -> None:
    path = Path("out") / name
    path.unlink()
    os.mkfifo(path)
    assert any(line.startswith(f"{name}: expected ") for line in findings())
    path.unlink()
    path.mkdir()
    assert any(line.startswith(f"{name}: expected ") for line in findings())


# Sealed anew, by somebody who knows how but has not the key.


def rechain(change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Write another log whose lines belong together."""
    path = Path("out/queries.jsonl")
    queries = [json.loads(line) for line in path.read_text().splitlines()]
    change(queries)
    before, lines = "0" * 64, []
    for query in queries:
        lines.append(json.dumps(query | {"previous": before}, sort_keys=True, separators=(",", ":")))
        before = hashlib.sha256(lines[-1].encode()).hexdigest()
    path.write_text("".join(f"{line}\n" for line in lines))


def edit_report(change: Callable[[dict[str, Any]], object]) -> None:
    report = json.loads(Path("out/report.json").read_text())
    change(report)
    Path("out/report.json").write_text(json.dumps(report, indent=2) + "\n")


def test_only_the_key_tells_who_sealed_it(bundled: Cli) -> None:
    owner = signing.load_public_key(Path("owner.pub"))
    assert findings(key=owner) == ()
    reseal()
    assert findings() == ()  # nothing was changed but who stands for it
    assert "not signed" in bundled("verify", "out")[1]
    status, out, _ = bundled("verify", "out", "--public-key", "owner.pub")
    assert (status, f"expected the signature of {owner}, found none" in out) == (4, True)
    other = signing.load_signer(Path("other.pem"))
    reseal(lambda manifest: manifest["predicate"].update(signed_by=other.public), signed=True)
    Path("out/signature.json").write_bytes(signing.sign(Path("out/manifest.json").read_bytes(), other))
    assert findings() == ()
    assert findings(key=owner) == (f"signature.json: expected a signature by {owner}, found one by {other.public}",)


def test_it_is_said_where_somebody_else_committed(bundled: Cli) -> None:
    said = ", not by the signer of the bundle"
    assert said not in bundled("verify", "out")[1]
    assert bundled("commit", "s.safetensors", "c.safetensors", *HOW, "-o", "nobody.json")[0] == 0
    assert bundled("audit", *MODELS, *HOW, "--commitment", "nobody.json", "--key", "other.pem", "-o", "out")[0] == 1
    assert f"the commitment is signed by nobody{said}" in bundled("verify", "out")[1]


def test_the_wrong_key_is_no_changed_file(bundled: Cli) -> None:
    status, out, _ = bundled("verify", "out", "--public-key", "other.pub")
    assert (status, "files were changed" in out) == (4, False)


def test_a_signature_of_another_bundle(bundled: Cli) -> None:
    signature = Path("out/signature.json").read_bytes()
    reseal(lambda manifest: manifest["predicate"]["withheld"].append("suite.safetensors"), signed=True)
    Path("out/signature.json").write_bytes(signature)
    assert findings() == ("signature.json: signs another manifest",)


def edit_environment(change: Callable[[dict[str, Any]], object]) -> None:
    path = Path("out/environment.json")
    environment = json.loads(path.read_text())
    change(environment)
    path.write_text(json.dumps(environment, sort_keys=True, indent=2) + "\n")


def exchanged(queries: list[dict[str, Any]], *, stored: bool = False) -> None:
    """Exchange the names of two suspects."""
    one, other = (query for query in queries if query["model"] in ("copy.toy", "honest.toy"))
    one["model"], other["model"] = other["model"], one["model"]
    one["stored"] = other["stored"] = stored


def exchange_names(*, stored: bool = False) -> None:
    rechain(lambda queries: exchanged(queries, stored=stored))
    edit_report(
        lambda report: [
            suspect.update(path=name)
            for suspect, name in zip(report["suspects"], ("honest.toy", "copy.toy"), strict=False)
        ]
    )


FORGERIES: dict[str, tuple[Callable[[], object], str]] = {
    "another decision": (
        lambda: edit_report(lambda report: report["suspects"][1].update(decision="copy")),
        'report.json: suspects[1].decision: says "copy", recomputed "independent"',
    ),
    "another value": (
        lambda: edit_report(lambda report: report["suspects"][1]["metrics"]["surety"].update(value=0.01)),
        "report.json: suspects[1].metrics.surety.value: says 0.01, recomputed 0.",
    ),
    "no vote": (
        lambda: edit_report(lambda report: report["suspects"][0]["metrics"]["surety"].update(vote=None)),
        "report.json: suspects[0].metrics.surety.reason: ",
    ),
    "a metric less": (
        lambda: edit_report(lambda report: report["suspects"][1]["metrics"].pop("surety")),
        "report.json: suspects[1].metrics.surety: is missing",
    ),
    "a key more": (
        lambda: edit_report(lambda report: report["suspects"][1].update(guilty=True)),
        "report.json: suspects[1]: expected no 'guilty'",
    ),
    "a suspect less": (
        lambda: edit_report(lambda report: report["suspects"].pop()),
        "report.json: expected 3 suspects",
    ),
    "another name": (
        lambda: edit_report(lambda report: report["suspects"][0].update(path="x.toy")),
        "queries.jsonl: expected one line per suspect of the report, in the same order, found others",
    ),
    "another rule": (
        lambda: edit_report(lambda report: report["rule_options"].update(share=0.4)),
        "report.json: expected rule_options as in the manifest, found others",
    ),
    "another source of a metric": (
        lambda: edit_report(lambda report: report["metrics"]["surety"].update(provider="others 1.0")),
        "report.json: expected metrics as in the manifest, found others",
    ),
    "a control's accuracy": (
        lambda: edit_report(lambda report: report["calibration"]["controls"][0].update(framework="torch")),
        'report.json: calibration.controls[0].framework: says "torch", recomputed "numpy"',
    ),
    "a failure that answered": (
        lambda: edit_report(lambda report: report["suspects"][2].update(decision="copy")),
        'report.json: suspects[2].decision: says "copy", recomputed "failed"',
    ),
    "another reason": (
        lambda: edit_report(lambda report: report["suspects"][2].update(reason="ran away")),
        "queries.jsonl: expected one line per suspect",
    ),
    "another page": (
        lambda: Path("out/report.html").write_text("<p>all is well"),
        "report.html: expected the page of report.json",
    ),
    "not a report": (lambda: Path("out/report.json").write_text("[]\n"), "report.json: expected a deepjudge/report/1"),
    "suspects that are none": (
        lambda: edit_report(lambda report: report.update(suspects=[1, 2, 3])),
        "report.json: suspects[0]: expected an object, found 1",
    ),
    "observations swapped": (
        lambda: [
            shutil.move("out/observations/suspect-0001.safetensors", "kept"),
            shutil.move("out/observations/suspect-0002.safetensors", "out/observations/suspect-0001.safetensors"),
            shutil.move("kept", "out/observations/suspect-0002.safetensors"),
        ],
        "queries.jsonl: the line of copy.toy does not match its answers in the bundle",
    ),
    "answers of another": (
        lambda: save_observation(Path("out/observations/suspect-0002.safetensors"), toys.seen(7)),
        "expected answers to this suite",
    ),
    "a log that is cut": (
        lambda: rechain(lambda queries: queries.pop()),
        "queries.jsonl: expected one line per suspect of the report",
    ),
    "a log without the victim": (
        lambda: rechain(lambda queries: queries.pop(0)),
        "queries.jsonl: expected one line for the victim, found 0",
    ),
    "a log without a control": (
        lambda: rechain(lambda queries: queries.pop(2)),
        "queries.jsonl: the control controls/c2.toy has no line that matches its answers",
    ),
    "a line that does not belong": (
        lambda: Path("out/queries.jsonl").write_bytes(
            b"".join(
                line for place, line in enumerate(Path("out/queries.jsonl").read_bytes().splitlines(True)) if place != 2
            )
        ),
        "queries.jsonl: line 3: does not belong after the line before it",
    ),
    "a log with other layers": (
        lambda: rechain(lambda queries: queries[5].update(layers={})),
        "queries.jsonl: the line of copy.toy does not match its answers in the bundle",
    ),
    "a log with other layers of a control": (
        lambda: rechain(lambda queries: queries[1].update(layers={"dense2": "elsewhere"})),
        "queries.jsonl: the control controls/c1.toy has no line that matches its answers",
    ),
    "a log of a victim that answered and failed": (
        lambda: rechain(lambda queries: queries[0].update(failure="crashed")),
        "queries.jsonl: line 1: expected either answers of victim.toy or a failure",
    ),
    "a log of a failure with a digest": (
        lambda: rechain(lambda queries: queries[7].update(digest="0" * 64)),
        "queries.jsonl: line 8: expected either answers of broken.toy or a failure",
    ),
    "a log that is none": (
        lambda: Path("out/queries.jsonl").write_text("{}\n"),
        "queries.jsonl: line 1: is not a query",
    ),
    "a log cut in a line": (
        lambda: Path("out/queries.jsonl").write_bytes(Path("out/queries.jsonl").read_bytes()[:-9]),
        "queries.jsonl: line 8: is incomplete",
    ),
    "another suite": (
        lambda: shutil.copy("s2.safetensors", "out/suite.safetensors"),
        "expected a calibration of the suite",
    ),
    "other controls": (
        lambda: shutil.copy("c2.safetensors", "out/calibration.safetensors"),
        "manifest.json: expected the digests of the suite and the calibration in the bundle, found others",
    ),
    "no suite": (
        lambda: Path("out/suite.safetensors").write_bytes(b"x" * 99),
        "suite.safetensors: expected a deepjudge",
    ),
    "exchanged names": (exchange_names, 'expected the name of the model that answered, "copy.toy", found honest.toy'),
    "exchanged names of answers that are said to be stored": (
        lambda: exchange_names(stored=True),
        'expected the name of the model that answered, "copy.toy", found honest.toy',
    ),
    "a look-alike name": (
        lambda: [
            rechain(lambda queries: [q.update(model="\u0441opy.toy") for q in queries if q["model"] == "copy.toy"]),
            edit_report(lambda report: report["suspects"][0].update(path="\u0441opy.toy")),
        ],
        'expected the name of the model that answered, "copy.toy"',
    ),
    "a log that runs backwards": (
        lambda: rechain(lambda queries: queries[4].update(time="2020-01-01T00:00:00Z")),
        "queries.jsonl: line 5: expected a time from ",
    ),
    "an environment that is none": (lambda: Path("out/environment.json").write_text("[]\n"), "environment.json: "),
    "an environment with a key twice": (
        lambda: Path("out/environment.json").write_text(
            Path("out/environment.json").read_text().replace('"python"', '"python": "1", "python"')
        ),
        "environment.json: expected the description of an environment: the same key twice",
    ),
    "an environment with a key more": (
        lambda: edit_environment(lambda environment: environment.update(verified=True)),
        "environment.json: expected the description of an environment: ",
    ),
    "an environment of another version": (
        lambda: edit_environment(lambda environment: environment["packages"].update(deepjudge="9.9")),
        "environment.json: expected deepjudge ",
    ),
    "no commitment": (lambda: Path("out/commitment.json").write_text("{}"), "commitment.json: expected a commitment"),
    "another commitment": (
        lambda: shutil.copy("commitment2.json", "out/commitment.json"),
        "commitment.json: judging.rule_options.share: committed to 0.4, found 0.5",
    ),
}


@pytest.fixture
def forging(bundled: Cli, snapshots: Snapshots) -> Cli:
    """The same with another suite, other controls and another commitment."""

    def make() -> None:
        bundled("suite", "victim.toy", "--inputs", "in.npz", *MADE, "--seed", "1", "-o", "s2.safetensors")
        bundled("calibrate", "s.safetensors", "controls/c[123].toy", "-o", "c2.safetensors")
        other = (*HOW, "--rule-option", "share=0.4", "-o", "commitment2.json")
        bundled("commit", "s.safetensors", "c.safetensors", *other)

    snapshots.fill("forging", bundled.folder, make)
    return bundled


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_was_forged_and_sealed_anew_is_recomputed(forging: Cli, forgery: str) -> None:
    forge, said = FORGERIES[forgery]
    forge()
    reseal()
    assert any(said in line for line in findings()), findings()


def test_a_copy_that_is_said_to_have_crashed_is_not_verified(bundled: Cli) -> None:
    """Its answers are gone from everywhere: nothing contradicts it, and nothing shows it."""

    def failed(queries: list[dict[str, Any]]) -> None:
        query = next(query for query in queries if query["model"] == "copy.toy")
        query.update(digest=None, observation=None, failure="crashed", layers={})

    def report_failure(report: dict[str, Any]) -> None:
        crash = json.dumps(report["suspects"][2] | {"path": "copy.toy"})
        report["suspects"][0] = json.loads(crash.replace(report["suspects"][2]["reason"], "crashed"))

    name = "observations/suspect-0001.safetensors"
    gone = (name, "runs.jsonl")  # the register of runs names the verdicts

    def without(manifest: dict[str, Any]) -> None:
        manifest["subject"] = [subject for subject in manifest["subject"] if subject["name"] not in gone]
        manifest["predicate"]["observations"][0] = None

    rechain(failed)
    edit_report(report_failure)
    reseal()
    assert any("copy.toy" in line for line in findings())  # its answers are still stored
    for file in gone:
        Path("out", file).unlink()
    reseal(without)
    assert findings() == ()
    assert not verify_bundle(Path("out")).verified
    assert any("copy.toy" in line for line in unchecked())
    status, out, _ = bundled("verify", "out")
    assert (status, "out: verified" in out) == (3, False)


def test_names_that_look_alike_are_said() -> None:
    from deepjudge_core.bundles.names import look_alikes

    assert not list(look_alikes(["a.onnx", "b.onnx", "models/a.onnx", "\u043c\u043e\u0434\u0435\u043b\u044c.onnx"]))
    for other in ("\u0441opy.toy", "COPY.toy", "co\u200bpy.toy", "c0py.toy", "\uff43opy.toy"):
        assert any("copy.toy" in line and "alike" in line for line in look_alikes(["copy.toy", other])), other
    [line] = look_alikes(["\u0441opy.toy"])
    assert "\\u0441opy.toy" in line


def test_a_note_that_answers_show_cannot_be_left_out(bundled: Cli) -> None:
    """Whoever takes a note out of the file of the controls, and out of the report, is told what their answers show."""
    stored = load_calibration(Path("c.safetensors"), load_suite(Path("s.safetensors")))
    unsteady = replace(stored.controls[0], unsteady="labels of 3 of 20 cases changed")
    silenced = replace(stored, controls=(unsteady, *stored.controls[1:]), notes=())
    save_calibration(Path("silent.safetensors"), silenced)
    judged = ("judge", "s.safetensors", "copy.toy", *HOW, "--calibration", "silent.safetensors", "-o", "out")
    assert bundled(*judged)[0] == 1
    notes = json.loads(Path("out/report.json").read_text())["calibration"]["notes"]
    assert any("labels of 3 of 20 cases changed" in note for note in notes)
    edit_report(lambda report: report["calibration"].update(notes=[]))
    reseal()
    assert any("calibration.notes" in line for line in findings())


def test_a_page_is_that_of_its_bundle(bundled: Cli) -> None:
    manifest = hashlib.sha256(Path("out/manifest.json").read_bytes()).hexdigest()
    page = Path("out/report.html").read_text()
    assert all(fact in page for fact in (manifest, signing.load_public_key(Path("owner.pub")), "no evidence"))
    shutil.copy("out/report.html", "given.html")
    assert bundled("verify", "out", "--page", "given.html")[0] == 3
    audit = ("audit", *MODELS, *HOW, "--html", "other.html", "--markdown", "other.md", "-o", "other")
    assert bundled(*audit)[0] == 1
    assert bundled("verify", "other", "--page", "other.html")[0] == 3
    assert bundled("verify", "other", "--page", "other.md")[0] == 3
    Path("given.html").write_text(page.replace("Yes: 1 of 3", "Yes: 2 of 3"))
    for forged in ("given.html", "other.html"):
        status, out, _ = bundled("verify", "out", "--page", forged)
        assert (status, f"wrong       {forged}: " in out) == (4, True)
    bundled.refuses(2, "cannot-read", "verify", "out", "--page", "none.html", facts=("none.html",))
    # Of a report alone it says so; it is the page of no bundle.
    assert bundled("report", "out/report.json", "--html", "alone.html")[0] == 0
    assert "belongs to no bundle" in Path("alone.html").read_text()
    assert bundled("verify", "out", "--page", "alone.html")[0] == 4


def test_a_report_of_before_sources_were_said_is_recomputed(bundled: Cli) -> None:
    edit_report(lambda report: [metric.pop("provider") for metric in report["metrics"].values()])
    reseal()
    assert findings() == ()


def test_a_sentence_of_another_version_is_shown_and_one_with_other_numbers_is_wrong(
    bundled: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reworded(new: str) -> None:
        edit_report(lambda other: other["suspects"][0]["settings"]["black-box"].update(statement=new))
        reseal()

    place = "suspects[0].settings.black-box.statement"
    statement = json.loads(Path("out/report.json").read_text())["suspects"][0]["settings"]["black-box"]["statement"]
    numbers = re.findall(r"\d+", statement)
    assert numbers
    reworded(f"In the words of before: {' '.join(numbers)}")
    assert any(place in line for line in findings())
    monkeypatch.setattr("deepjudge_core.bundles.verify.VERSION", "9.9")
    found = verify_bundle(Path("out"))
    assert found.findings == ()
    [note] = (note for note in found.notes if "In the words of before" in note)
    expect_facts(note, place, statement)
    reworded(f"In the words of before: {' '.join(numbers)} and 7")
    assert any(place in line for line in findings())


def test_an_explanation_of_a_metric_is_that_of_its_version(bundled: Cli) -> None:
    edit_report(lambda report: report["metrics"]["surety"].update(says="the share of stolen neurons"))
    reseal()
    assert any("metrics.surety.says" in line for line in findings())


def test_what_a_report_of_another_version_says_of_its_own_is_shown(
    bundled: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who names another version cannot slip in sentences that nothing was compared with."""
    monkeypatch.setattr("deepjudge_core.bundles.verify.VERSION", "9.9")
    made_up = [f"control {number} was examined by a court" for number in range(30)]
    edit_report(lambda report: report["metrics"]["surety"].update(title="proof of theft", says="a copy beyond doubt"))
    edit_report(lambda report: report["calibration"]["notes"].extend(made_up))
    reseal()
    found = verify_bundle(Path("out"))
    assert found.findings == ()
    said = "; ".join(found.notes)
    expect_facts(said, "metrics.surety.title", "proof of theft", "metrics.surety.says", "a copy beyond doubt")
    expect_facts(said, "calibration.notes", made_up[0], "10 more")


def test_values_within_the_last_digits_are_the_same(bundled: Cli) -> None:
    def move(share: float) -> None:
        metric = report["suspects"][0]["metrics"]["surety"]
        edit_report(lambda other: other["suspects"][0]["metrics"]["surety"].update(value=metric["value"] * (1 + share)))
        reseal()

    report = json.loads(Path("out/report.json").read_text())
    move(1e-6)
    found = verify_bundle(Path("out"))
    assert found.findings == ()
    assert any("not in every digit" in note for note in found.notes)
    move(1e-3)
    assert findings()


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a path out of the folder": lambda m: m["subject"][0].update(name="../c.safetensors"),
    "an absolute path": lambda m: m["subject"][0].update(name="/etc/passwd"),
    "a file twice": lambda m: m["subject"].append(m["subject"][0]),
    "a file more": lambda m: m["subject"].append({**m["subject"][0], "name": "more"}),
    "a file less": lambda m: m["subject"].pop(2),
    "no digest": lambda m: m["subject"][0].update(digest={}),
    "another digest": lambda m: m["subject"][0]["digest"].update(sha256="0"),
    "a size that is none": lambda m: m["subject"][0]["annotations"].update(size=-1),
    "a size that is huge": lambda m: m["subject"][0]["annotations"].update(size=10**30),
    "subjects that are none": lambda m: m.update(subject=3),
    "observations elsewhere": lambda m: m["predicate"].update(observations=["../s.safetensors", None, None]),
    "observations that are none": lambda m: m["predicate"].update(observations=[[], {}, 1]),
    "a withheld report": lambda m: m["predicate"].update(withheld=["report.json"]),
    "withheld things": lambda m: m["predicate"].update(withheld=[[1]]),
    "a signer that is none": lambda m: m["predicate"].update(signed_by=7),
    "no terms": lambda m: m["predicate"].pop("terms"),
    "other terms": lambda m: m["predicate"]["terms"].update(judging={}),
    "a rule that is none": lambda m: m["predicate"]["terms"]["judging"].update(rule=1),
    "metrics that are none": lambda m: m["predicate"]["terms"]["judging"].update(metrics=[1]),
    "groups that are none": lambda m: m["predicate"]["terms"]["judging"].update(groups="all"),
    "another statement": lambda m: m.update(predicateType="urn:deepjudge:commitment:1"),
    "another type": lambda m: m.update(_type="https://in-toto.io/Statement/v0.1"),
    "a key more": lambda m: m.update(more=1),
    "a predicate's key more": lambda m: m["predicate"].update(more=1),
}


@pytest.mark.parametrize("change", MANIFESTS)
def test_a_manifest_that_cannot_be(bundled: Cli, change: str) -> None:
    reseal(MANIFESTS[change])
    [line] = findings()
    assert line.startswith("manifest.json: ") or (change == "a size that is huge" and "was changed" in line)
    assert bundled("verify", "out")[::2] == (4, "")


def test_an_unknown_rule_or_metric_is_said(bundled: Cli) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        manifest["predicate"]["terms"]["judging"]["rule"] = "elsewhere"

    edit_report(lambda report: report.update(rule="elsewhere"))
    Path("out/commitment.json").unlink()
    reseal(lambda m: [rename(m), m.update(subject=[s for s in m["subject"] if s["name"] != "commitment.json"])])
    assert any("no rule is called 'elsewhere'" in line for line in findings())


def test_files_that_are_too_large_are_not_read(bundled: Cli) -> None:
    with Path("out/report.json").open("r+b") as file:
        file.truncate(LARGEST_JSON + 1)
    reseal()
    [line] = findings()
    assert line.startswith("report.json: expected ")
    with Path("out/manifest.json").open("r+b") as file:
        file.truncate(2**40)
    [line] = findings()
    assert line.startswith("manifest.json: expected ")


def test_what_is_no_bundle(bundled: Cli) -> None:
    bundled.refuses(2, "wrong-usage", "verify", "in.npz", facts=("in.npz: ", "folder", "bundle"))
    Path("empty").mkdir()
    status, out, err = bundled("verify", "empty")
    assert (status, err) == (4, "")
    assert "manifest.json: no such file" in out
    facts = ("in.npz: ", "Ed25519", "PEM")
    bundled.refuses(2, "wrong-value", "verify", "out", "--public-key", "in.npz", facts=facts)


# Handed over.


def test_an_audit_is_verified_elsewhere(ready: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With the metrics and the rule that come with the tool, on a machine without frameworks and without models."""
    ready("commit", "s.safetensors", "c.safetensors", "--key", "owner.pem", "-o", "mine.json")
    assert ready("audit", *MODELS, "--commitment", "mine.json", "--key", "owner.pem", "-o", "out")[0] == 4
    there = tmp_path_factory.mktemp("there")
    shutil.copytree("out", there / "handed-over")
    shutil.copytree("toys-1.0.dist-info", there / "toys-1.0.dist-info")
    shutil.copy("owner.pub", there)
    found = elsewhere(there, "verify", "handed-over", "--public-key", "owner.pub")
    assert (found.returncode, found.stderr) == (3, "")  # broken.toy is said to have failed
    assert found.stdout.splitlines()[-1].endswith(", 2 verdicts recomputed")
    flip(there / "handed-over" / "observations" / "suspect-0001.safetensors", 2000)
    found = elsewhere(there, "verify", "handed-over", "--public-key", "owner.pub")
    assert (found.returncode, found.stderr) == (4, "")
    assert "observations/suspect-0001.safetensors: was changed" in found.stdout


def test_without_the_library_for_signatures(bundled: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    there = bundled.folder
    absent = (*FRAMEWORKS, "cryptography")
    found = elsewhere(there, "verify", "out", absent=absent)
    assert found.returncode == 3
    assert "unchecked   the signature was not checked: " in found.stdout
    assert "pip install 'deepjudge[evidence]'" in found.stdout
    assert "signed by   " not in found.stdout
    found = elsewhere(there, "verify", "out", "--public-key", "owner.pub", absent=absent)
    assert found.returncode == 4
    assert found.stderr.startswith("deepjudge: owner.pub: needs cryptography, which is not installed")
    found = elsewhere(there, "commit", "s.safetensors", "-o", "unsigned.json", absent=absent)
    assert (found.returncode, found.stderr) == (0, "")
    found = elsewhere(there, "commit", "s.safetensors", "--key", "owner.pem", "-o", "never.json", absent=absent)
    assert found.returncode == 4
    assert not Path("never.json").exists()


def test_an_audit_by_a_file_is_sealed_as_it_says(ready: Cli) -> None:
    Path("audit.toml").write_text(
        'output = "out"\nmetrics = ["answers", "surety", "outputs"]\n[victim]\npath = "victim.toy"\n'
        '[inputs]\npath = "in.npz"\n[suite]\nseeds = 20\n[generators.shove]\n[generators.poke]\n'
        '[rule]\nname = "nearest"\n[bundle]\nkey = "owner.pem"\ncommitment = "commitment.json"\nobservations = false\n'
        '[[controls]]\npath = "controls"\n[[suspects]]\npath = "copy.toy"\n'
    )
    assert ready("audit", "audit.toml")[0] == 1
    assert not names(Path("out")) & SECRET
    assert {"signature.json", "commitment.json"} <= names(Path("out"))
    assert ready("verify", "out", "--public-key", "owner.pub")[0] == 3  # what was withheld cannot be checked
    text = Path("audit.toml").read_text()
    Path("audit.toml").write_text(text.replace('"nearest"', '"voting"'))
    status, _, err = ready("audit", "audit.toml")
    assert status == 2
    assert 'judging.rule: committed to "nearest", found "voting"' in err


def test_a_commitment_says_each_thing_once() -> None:
    """An option whose name has a dot, and one that is null, are others than those that they look like."""

    def terms(**options: Any) -> Terms:
        judging = {"metrics": ["answers"], "rule": "nearest", "rule_options": options, "groups": "separate"}
        whole = {"deepjudge": "0.1.0", "suite": "1" * 64, "calibration": None, "judging": judging, "components": {}}
        return parse(Terms, whole)

    ours = terms(alpha={"answers": 0.5})
    assert not ours.differences(terms(alpha={"answers": 0.5}))
    assert ours.differences(terms(**{"alpha": {"answers": 0.9}, "alpha.answers": 0.5}))
    assert ours.differences(terms(alpha={"answers": 0.5}, share=None))
