"""What tests of bundles share: a folder that is ready for one, and ways to change it."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import HOW, MADE, Cli
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from places import ROOT
from snapshots import Snapshots

from deepjudge_core.errors import DeepJudgeError
from deepjudge_core.report.documents import read_audit
from deepjudge_core.report.html import render_html
from deepjudge_core.report.pages.any import Seal

MODELS = ("victim.toy", "copy.toy", "honest.toy", "broken.toy", "--controls", "controls", "--inputs", "in.npz", *MADE)


def write_key(name: str, seed: int) -> str:
    """A key pair as NAME.pem and NAME.pub; returns the public key in hex."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    pem, pkcs8, spki = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.PublicFormat.SubjectPublicKeyInfo,
    )
    Path(f"{name}.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    Path(f"{name}.pub").write_bytes(key.public_key().public_bytes(pem, spki))
    return key.public_key().public_bytes_raw().hex()


@pytest.fixture
def ready(cli: Cli, snapshots: Snapshots) -> Cli:
    """A suite, a calibration, keys of the owner and of somebody else, and a commitment that the owner signed."""

    def make() -> None:
        Path("broken.toy").write_text("{")
        write_key("owner", 1)
        write_key("other", 2)
        assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
        assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
        signed = ("s.safetensors", "c.safetensors", *HOW, "--key", "owner.pem", "-o", "commitment.json")
        assert cli("commit", *signed)[0] == 0

    snapshots.fill("ready", cli.folder, make)
    return cli


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def reseal(change: Callable[[dict[str, Any]], None] = lambda manifest: None, *, signed: bool = False) -> None:
    """Write a manifest of what is in the folder now, and the page that goes with it, unless what is there is none."""
    manifest = json.loads(Path("out/manifest.json").read_text())
    for subject in manifest["subject"]:
        path = Path("out") / subject["name"]
        if path.is_file():
            data = path.read_bytes()
            subject["digest"]["sha256"], subject["annotations"]["size"] = hashlib.sha256(data).hexdigest(), len(data)
    if not signed:
        manifest["predicate"]["signed_by"] = None
        Path("out/signature.json").unlink(missing_ok=True)
    change(manifest)
    manifest["predicate"].pop("sha256", None)
    text = lambda: json.dumps(manifest, sort_keys=True, indent=2) + "\n"  # noqa: E731
    manifest["predicate"]["sha256"] = hashlib.sha256(text().encode()).hexdigest()
    Path("out/manifest.json").write_text(text())
    if Path("out/report.html").read_bytes().startswith(b"<!"):
        signer = manifest["predicate"].get("signed_by")
        seal = Seal(hashlib.sha256(text().encode()).hexdigest(), None if signer is None else str(signer))
        with contextlib.suppress(DeepJudgeError):  # of what is no report
            Path("out/report.html").write_bytes(render_html(read_audit(Path("out/report.json"))[0], seal))


ELSEWHERE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules}:
            raise ImportError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Absent())
from deepjudge_core.cli.main import main
sys.exit(main(sys.argv[1:]))
"""

FRAMEWORKS = ("torch", "transformers", "tensorflow", "keras", "onnx", "onnxruntime", "onnx2fx", "openvino", "jax")


def elsewhere(folder: Path, *words: str, absent: tuple[str, ...] = FRAMEWORKS) -> "subprocess.CompletedProcess[str]":
    """Runs a command in another process, in which some modules cannot be imported and there are no models."""
    path = os.pathsep.join([str(folder), str(ROOT / "tests"), *sys.path])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", ELSEWHERE.format(modules=set(absent)), *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
