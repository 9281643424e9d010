"""Time-stamps of commitments, by a real authority: what is not its word on these bytes is refused and named."""

import datetime
import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from authority import OPENSSL, Authority
from bundling import FRAMEWORKS, MODELS, elsewhere, flip, ready, reseal
from commands import HOW, Cli
from snapshots import Snapshots

from deepjudge_core.bundles.timestamp import load_certificates, make_request, read_response
from deepjudge_core.bundles.verify import verify_bundle
from deepjudge_core.errors import FileFormatError

__all__ = ["ready"]
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl, which is the authority, is not installed")
STAMPED = ("--commitment", "commitment.json", "--tsa-response", "commitment.tsr")
JUDGED = ("judge", "s.safetensors", "copy.toy", *HOW, "--calibration", "c.safetensors")


def stamp(cli: Cli, authority: Authority, **settings: str) -> None:
    """Commit again, and let an authority answer."""
    signed = ("s.safetensors", "c.safetensors", *HOW, "--key", "owner.pem")
    assert cli("commit", *signed, "--tsa-request", "commitment.tsq", "-o", "commitment.json")[0] == 0
    authority.answer("commitment.tsq", "commitment.tsr", **settings)


@pytest.fixture
def stamped(ready: Cli, snapshots: Snapshots) -> Cli:
    """A commitment with the response of an authority, `authority`; another, `another`, that did not answer."""

    def make() -> None:
        Authority.make(Path("another"))
        stamp(ready, Authority.make(Path("authority")))

    snapshots.fill("stamped", ready.folder, make)
    return ready


@pytest.fixture
def bundled(stamped: Cli, snapshots: Snapshots) -> Cli:
    """The same with a bundle in `out`."""

    def make() -> None:
        assert stamped("audit", *MODELS, *HOW, *STAMPED, "--key", "owner.pem", "-o", "out")[0] == 1

    snapshots.fill("stamped-bundle", stamped.folder, make)
    return stamped


def test_a_request_is_one_to_others(stamped: Cli) -> None:
    asked = ["openssl", "ts", "-query", "-in", "commitment.tsq", "-text"]
    text = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert "Version: 1\nHash Algorithm: sha256\n" in text
    assert "Certificate required: yes" in text
    assert "Nonce: 0x" in text
    digest = hashlib.sha256(Path("commitment.json").read_bytes()).digest()
    assert digest in Path("commitment.tsq").read_bytes()
    # Each has a nonce of its own.
    assert make_request(b"x", "x") != make_request(b"x", "x")


def test_a_response_is_one_to_others(stamped: Cli) -> None:
    asked = ["openssl", "ts", "-verify", "-in", "commitment.tsr", "-CAfile", "authority/root.pem"]
    for what in (("-data", "commitment.json"), ("-queryfile", "commitment.tsq")):
        assert subprocess.run([*asked, *what], capture_output=True, check=False).returncode == 0
    assert stamped(*JUDGED, *STAMPED)[0] == 1


def test_a_bundle_with_the_time_of_its_commitment(bundled: Cli) -> None:
    assert Path("out/commitment.tsr").read_bytes() == Path("commitment.tsr").read_bytes()
    now = datetime.datetime.now(datetime.UTC)
    found = verify_bundle(Path("out"), None, load_certificates(Path("authority/root.pem")))
    assert found.stamp is not None
    assert found.findings == ()
    assert found.stamp.verified
    assert datetime.timedelta(0) <= now - found.stamp.time < datetime.timedelta(minutes=10)
    status, out, err = bundled("verify", "out", "--tsa-certificate", "authority/root.pem")
    assert (status, err) == (3, "")  # only a model can show that broken.toy failed
    assert f"committed   {found.stamp.time:%Y-%m-%dT%H:%M:%SZ} or before\n" in out
    assert "not verified" not in out
    # Without the certificate it is what anybody may have written.
    status, out, _ = bundled("verify", "out")
    assert (status, "or before, not verified\n" in out, "--tsa-certificate verifies it" in out) == (3, True, True)
    status, out, _ = bundled("verify", "out", "--tsa-certificate", "another/root.pem")
    assert status == 4
    assert "wrong       commitment.tsr: expected a signature by the authority" in out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"days": (-5, -2)}, "certificate has expired"),
        ({"days": (2, 5)}, "certificate is not yet valid"),
    ],
)
def test_a_certificate_that_was_not_valid_when_it_stamped(
    ready: Cli, settings: dict[str, tuple[float, float]], said: str
) -> None:
    stamp(ready, Authority.make(Path("authority"), days=settings["days"]))
    data = Path("commitment.json").read_bytes(), "r"
    response, trusted = Path("commitment.tsr").read_bytes(), load_certificates(Path("authority/root.pem"))
    assert not read_response(response, *data).verified
    with pytest.raises(FileFormatError, match=said):
        read_response(response, *data, trusted)


def test_a_request_that_was_refused(stamped: Cli) -> None:
    stamp(stamped, Authority(Path("authority")), digests="sha512")
    facts = ("commitment.tsr: ", "Message digest algorithm is not")
    for command in (JUDGED, ("audit", *MODELS, *HOW, "-o", "out")):
        stamped.refuses(4, "wrong-file", *command, *STAMPED, facts=facts)


def test_the_response_to_another_commitment(stamped: Cli) -> None:
    stamped("commit", "s.safetensors", "c.safetensors", *HOW, "--tsa-request", "other.tsq", "-o", "other.json")
    Authority(Path("authority")).answer("other.tsq", "commitment.tsr")
    facts = ("commitment.tsr: ", hashlib.sha256(Path("commitment.json").read_bytes()).hexdigest())
    for command in (JUDGED, ("audit", *MODELS, *HOW, "-o", "out")):
        stamped.refuses(4, "wrong-file", *command, *STAMPED, facts=facts)


@pytest.mark.parametrize("content", [b"", b"0", b"\x30\x03\x02\x01\x00", b"\x30" * 9999], ids=len)
def test_what_is_no_response(stamped: Cli, content: bytes) -> None:
    Path("commitment.tsr").write_bytes(content)
    stamped.refuses(4, "damaged-file", *JUDGED, *STAMPED, facts=("commitment.tsr: ",))


def test_the_request_in_place_of_its_response(stamped: Cli) -> None:
    command = (*JUDGED, "--commitment", "commitment.json", "--tsa-response", "commitment.tsq")
    stamped.refuses(4, "damaged-file", *command, facts=("commitment.tsq: ", "response", "request"))


def test_a_response_without_a_commitment(stamped: Cli) -> None:
    for command in (JUDGED, ("audit", *MODELS, *HOW, "-o", "out")):
        given = (*command, "--tsa-response", "commitment.tsr")
        stamped.refuses(2, "missing-value", *given, facts=("commitment.tsr: ", "the commitment"))
    command = (*JUDGED, "--commitment", "commitment.json", "--tsa-response", "missing.tsr")
    stamped.refuses(2, "cannot-read", *command, facts=("missing.tsr: ",))


def test_damaged_responses(stamped: Cli) -> None:
    """A changed bit that is covered by the signature is found, and none makes the library fail otherwise."""
    response, data = Path("commitment.tsr").read_bytes(), Path("commitment.json").read_bytes()
    trusted = load_certificates(Path("authority/root.pem"))
    refused = 0
    for place in range(0, len(response), 3):
        changed = bytearray(response)
        changed[place] ^= 1
        try:
            assert read_response(bytes(changed), data, "r", trusted) == read_response(response, data, "r", trusted)
        except FileFormatError:
            refused += 1
    assert refused > 0.9 * len(response) / 3


def test_a_forged_time_sealed_anew(bundled: Cli) -> None:
    response = Path("out/commitment.tsr").read_bytes()
    year = f"{datetime.datetime.now(datetime.UTC):%Y%m}".encode()
    assert response.count(year) >= 1
    Path("out/commitment.tsr").write_bytes(response.replace(year, b"202001"))
    report = json.loads(Path("out/report.json").read_text())
    report["committed"]["date"] = "2020-01" + report["committed"]["date"][7:]
    Path("out/report.json").write_text(json.dumps(report, indent=2) + "\n")
    reseal()
    found = verify_bundle(Path("out"))
    assert found.findings == ()
    assert found.stamp is not None
    assert found.stamp.time.year == 2020
    assert not found.stamp.verified  # which is all that can be said of it
    found = verify_bundle(Path("out"), None, load_certificates(Path("authority/root.pem")))
    assert [line.split(":")[0] for line in found.findings] == ["commitment.tsr"]
    assert found.stamp is None


def test_suspects_that_were_asked_before(stamped: Cli) -> None:
    assert stamped("audit", *MODELS, *HOW, *STAMPED, "-o", "out")[0] == 1
    response = Path("out/commitment.tsr").read_bytes()
    year = f"{datetime.datetime.now(datetime.UTC):%Y%m}".encode()
    said = "according to the log's clock, a suspect was asked before the time of the commitment"
    assert said not in stamped("verify", "out")[1]
    Path("out/commitment.tsr").write_bytes(response.replace(year, b"209901"))
    reseal()
    assert said in stamped("verify", "out")[1]


def test_answers_that_were_stored_before_have_no_time(stamped: Cli) -> None:
    assert stamped("observe", "s.safetensors", "copy.toy", "-o", "copy.safetensors")[0] == 0
    models = ("victim.toy", "honest.toy", "copy.safetensors", *MODELS[4:])
    assert stamped("audit", *models, "--stored", *HOW, *STAMPED, "-o", "out")[0] == 1
    status, out, _ = stamped("verify", "out", "--tsa-certificate", "authority/root.pem")
    assert status == 0
    assert "copy.safetensors had answered before the audit, and possibly before the commitment" in out
    assert "honest.toy had answered" not in out


def test_a_bundle_without_a_time_stamp_where_one_is_asked_for(stamped: Cli) -> None:
    assert stamped("audit", *MODELS, *HOW, "--commitment", "commitment.json", "-o", "out")[0] == 1
    status, out, _ = stamped("verify", "out", "--tsa-certificate", "authority/root.pem")
    assert (status, "wrong       commitment.tsr: expected the time-stamp of a commitment, found none" in out) == (
        4,
        True,
    )
    stamped.refuses(2, "wrong-value", "verify", "out", "--tsa-certificate", "in.npz", facts=("in.npz: ", "PEM"))


def test_a_time_stamp_of_nothing(bundled: Cli) -> None:
    Path("out/commitment.json").unlink()
    reseal(lambda m: m.update(subject=[s for s in m["subject"] if s["name"] != "commitment.json"]))
    [line] = verify_bundle(Path("out")).findings
    assert "expected commitment.json together with commitment.tsr" in line


def test_a_changed_bit_of_the_response_is_named(bundled: Cli) -> None:
    size = Path("out/commitment.tsr").stat().st_size
    for place in range(0, size, size // 40):
        flip(Path("out/commitment.tsr"), place)
        assert [line.split(":")[0] for line in verify_bundle(Path("out")).findings] == ["commitment.tsr"]
        flip(Path("out/commitment.tsr"), place)
    Path("out/commitment.tsr").unlink()
    assert [line.split(":")[0] for line in verify_bundle(Path("out")).findings] == ["commitment.tsr"]


def test_an_earlier_time_stamp_is_no_part_of_the_next_bundle(bundled: Cli) -> None:
    assert bundled("audit", *MODELS, *HOW, "-o", "out")[0] == 1
    assert not Path("out/commitment.tsr").exists()
    assert bundled("verify", "out")[0] == 3


def test_an_audit_by_a_file(stamped: Cli) -> None:
    text = (
        'output = "out"\nmetrics = ["answers", "surety", "outputs"]\n[victim]\npath = "victim.toy"\n'
        '[inputs]\npath = "in.npz"\n[suite]\nseeds = 20\n[generators.shove]\n[generators.poke]\n'
        '[rule]\nname = "nearest"\n[bundle]\ncommitment = "commitment.json"\ntsa_response = "commitment.tsr"\n'
        '[[controls]]\npath = "controls"\n[[suspects]]\npath = "copy.toy"\n'
    )
    Path("audit.toml").write_text(text)
    assert stamped("audit", "audit.toml")[0] == 1
    assert Path("out/commitment.tsr").read_bytes() == Path("commitment.tsr").read_bytes()
    Path("audit.toml").write_text(text.replace('commitment = "commitment.json"\n', ""))
    stamped.refuses(2, "missing-value", "audit", "audit.toml", facts=("commitment.tsr: ", "the commitment"))


def test_without_the_library(bundled: Cli) -> None:
    absent = (*FRAMEWORKS, "rfc3161_client")
    found = elsewhere(bundled.folder, "verify", "out", absent=absent)
    assert found.returncode == 3
    assert "the time-stamp was not checked: commitment.tsr: needs rfc3161-client" in found.stdout
    assert "committed  " not in found.stdout
    for words in (
        ("verify", "out", "--tsa-certificate", "authority/root.pem"),
        (*JUDGED, *STAMPED, "--no-sandbox"),
        ("commit", "s.safetensors", "--tsa-request", "never.tsq", "-o", "never.json"),
    ):
        found = elsewhere(bundled.folder, *words, absent=absent)
        assert found.returncode == 4
        [line] = found.stderr.splitlines()
        assert "needs rfc3161-client, which is not installed: pip install 'deepjudge[evidence]'" in line
    assert not Path("never.json").exists()
