"""Digests of models, which are those of OpenSSF Model Signing too."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import toys
from commands import HOW, MADE, Cli
from hypothesis import given
from hypothesis import strategies as st

from deepjudge_core import load_observation, load_registry, load_suite, open_model
from deepjudge_core.files import digests
from deepjudge_core.models.info import ModelInfo

# Names whose order as texts is not that as paths, and what is left out.
FOLDER = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": b"weights",
    "variables-more/a": b"a",
    "variables.txt": b"",
    "assets/.git": b"a file inside that only looks like one",
    ".gitattributes": b"*.pb binary",
    ".git/HEAD": b"ref: refs/heads/main",
    ".github/CODEOWNERS": b"* me",
    ".gitignore": b"*.sig",
}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# By model-signing 1.1.1: signing.Payload(hashing.hash(path)).statement, of what the tests below write.
OF_FOLDER = "0179f62288b065a9fe3f18f3e6d1e554f577a9812469672bfe31435f8d081c76"
OF_FILE = "99ed33b4a31896bce020da0e631a9ed8d3ff2efaf192be1d80cf405b5ba722c2"
OF_BOTH = "12324812055609cb6fde7da642479b4a0258b530e5b9ad687a87086ae019fc39"


def test_a_folder(tmp_path: Path) -> None:
    found = digests.of_folder(write(tmp_path / "model", FOLDER))
    assert found.files == {name: sha(data) for name, data in FOLDER.items()}
    assert digests.root(found.files) == OF_FOLDER


def test_a_file(tmp_path: Path) -> None:
    write(tmp_path, {"model.onnx": b"graph", "model.onnx.data": b"weights"})
    alone = digests.of_file(tmp_path / "model.onnx")
    assert alone == digests.FileDigests(sha(b"graph"), {".": sha(b"graph")})
    assert digests.root(alone.files) == OF_FILE
    both = digests.of_file(tmp_path / "model.onnx", [tmp_path / "model.onnx.data"])
    assert both.files == {"model.onnx": sha(b"graph"), "model.onnx.data": sha(b"weights")}
    assert both.digest != alone.digest
    assert digests.root(both.files) == OF_BOTH


def test_one_file_has_never_the_digest_of_several(tmp_path: Path) -> None:
    # What the digest of several was once made of: the bytes of the first, then name and digest of each other.
    write(tmp_path, {"model.onnx": b"graph", "w": b"weights"})
    joined = b"graph" + b"w" + hashlib.sha256(b"weights").digest()
    write(tmp_path, {"alone.onnx": joined})
    both = digests.of_file(tmp_path / "model.onnx", [tmp_path / "w"])
    assert digests.of_file(tmp_path / "alone.onnx").digest != both.digest


def test_names_that_no_folder_has(tmp_path: Path) -> None:
    # As in an observation that a stranger stored.
    whole = digests.of_folder(write(tmp_path / "model", FOLDER)).files
    assert digests.root({f".//{name.replace('/', '//./')}": sha256 for name, sha256 in whole.items()}) == OF_FOLDER


def theirs(path: Path) -> tuple[str, dict[str, str]]:
    """What the library itself says."""
    hashing = pytest.importorskip("model_signing.hashing", reason="model-signing is not installed")
    from model_signing._signing.signing import Payload

    statement = Payload(hashing.hash(path)).statement.pb
    [subject] = statement.subject
    return subject.digest["sha256"], {r["name"]: r["digest"] for r in statement.predicate["resources"]}


def test_the_library_says_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", FOLDER)
    root, files = theirs(folder)
    assert root == OF_FOLDER
    assert files == {name: sha(data) for name, data in FOLDER.items() if not name.startswith(".git")}
    assert theirs(write(tmp_path / "one", {"model.onnx": b"graph"}) / "model.onnx") == (OF_FILE, {".": sha(b"graph")})
    both = write(tmp_path / "both", {"model.onnx": b"graph", "model.onnx.data": b"weights"})
    assert theirs(both)[0] == OF_BOTH


NAMES = st.lists(st.text("ab.-_0", min_size=1, max_size=3).filter(lambda n: n.strip(".")), min_size=1, max_size=3)


@given(st.dictionaries(NAMES.map("/".join), st.binary(max_size=3), min_size=1, max_size=6))
def test_the_order_is_that_of_paths(files: dict[str, bytes]) -> None:
    content = {name: sha(data) for name, data in files.items()}
    ordered = sorted(content, key=lambda name: name.split("/"))
    assert digests.root(content) == sha(b"".join(bytes.fromhex(content[name]) for name in ordered))
    assert digests.root({**content, ".git/x": sha(b"x"), ".gitignore": sha(b"y")}) == digests.root(content)


@pytest.mark.skipif(sys.platform != "linux", reason="models are opened in workers")
def test_the_report_names_the_files_of_each_model(cli: Cli) -> None:
    cli.confined = True
    cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")
    cli("observe", "s.safetensors", "honest.toy", "-o", "seen.safetensors")
    Path("broken.toy").write_bytes(b"nothing")
    audited = ("audit", "victim.toy", "copy.toy", "seen.safetensors", "broken.toy", "--controls", "controls")
    assert cli(*audited, "--inputs", "in.npz", *MADE, *HOW, "--stored", "-o", "out")[0] == 1
    report = json.loads(Path("out/report.json").read_text())
    [copy, stored, missing] = report["suspects"]
    for model in (report["victim"], *report["calibration"]["controls"], copy, stored):
        content = sha(Path("honest.toy" if model is stored else model["path"]).read_bytes())
        assert (model["digest"], model["files"]) == (content, {".": content})
        assert model["model_signing"] == sha(bytes.fromhex(content))
    assert (missing["files"], missing["model_signing"]) == ({}, None)
    assert load_suite(Path("out/suite.safetensors")).victim.model.files == report["victim"]["files"]
    assert load_observation(Path("seen.safetensors")).model.files == stored["files"]
    assert cli("verify", "out")[0] == 3  # that the broken one failed cannot be checked


def test_only_files_that_were_opened_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, registry = toys.save_model(tmp_path / "a.toy"), toys.registry()
    content = sha(path.read_bytes())
    # An adapter whose digest is another: of the weights, or of a file that was there a moment ago.
    assert ModelInfo.of(open_model(path, registry=registry)).files == {}
    model = toys.make_model()
    model.digest = content
    monkeypatch.setattr(toys, "_open_any", lambda source, *, name=None: model)
    assert ModelInfo.of(open_model(path, registry=load_registry({"toys": toys}))).files == {".": content}
    assert ModelInfo.of(toys.make_model()).files == {}


@pytest.mark.parametrize(
    "files", [{".": "0" * 64}, {"a": "0"}, {"a": "0" * 63 + "G"}, {"a": 7}, ["a"], {"a": None}, 3, "x"]
)
def test_stored_files_that_cannot_be(files: Any) -> None:
    value = toys.suite().victim.model.to_json()
    assert "files" not in value
    assert ModelInfo.from_json(value).files == {}
    with pytest.raises((ValueError, AttributeError)):
        ModelInfo.from_json({**value, "files": files})
