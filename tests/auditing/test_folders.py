"""Folders of suspects: nothing in them is passed over without a word."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import toys

from deepjudge_core.auditing import folders
from deepjudge_core.auditing.folders import SKIPPED, Found, by_code, look_at, look_into
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import ModelError
from deepjudge_core.files import storage


@pytest.fixture
def registry() -> Registry:
    """The toys alone."""
    return toys.registry()


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """Two models among all else that people upload."""
    folder = tmp_path / "uploads"
    (folder / "more" / "deeper").mkdir(parents=True)
    (folder / "logs").mkdir()
    for name in ("b.toy", "a.toy", ".hidden.toy", "more/c.toy", "more/deeper/d.toy"):
        toys.save_model(folder / name, seed=3)
    (folder / ".DS_Store").write_text("x")
    (folder / "model.pkl").write_bytes(b"")
    (folder / "weights.dat").write_bytes(pickle.dumps([1, 2, 3]))
    (folder / "all.zip").write_bytes(b"PK")
    (folder / "notes").write_text("x")
    (folder / "README.txt").write_text("x")
    (folder / "logs" / "log.txt").write_text("x")
    (folder / "latest").symlink_to("a.toy")
    (folder / "nowhere").symlink_to("no")
    (folder / "loop").symlink_to(".", target_is_directory=True)
    os.mkfifo(folder / "pipe")
    (folder / "report.json").write_text('{"schema": "deepjudge/report/1"}')
    storage.write(folder / "s.safetensors", storage.seal("suite", {}, {}))
    return folder


def named(found: Found, folder: Path) -> tuple[list[str], dict[str, tuple[str, bool]]]:
    """The names of models, and what is said of each other file."""
    models = [os.path.relpath(model, folder) for model in found.models]
    return models, {os.path.relpath(one.name, folder): (one.code, one.unjudged) for one in found.skipped}


def test_each_file_of_a_folder_is_a_model_or_is_told_of(uploads: Path, registry: Registry) -> None:
    models, skipped = named(look_into(uploads, registry.adapters), uploads)
    assert models == ["a.toy", "b.toy"]
    junk = {
        ".DS_Store": ("hidden", False),
        ".hidden.toy": ("hidden", True),
        "README.txt": ("unknown-format", False),
        "all.zip": ("archive", True),
        "latest": ("link", True),
        "logs": ("sub-folder", False),
        "loop": ("link", True),
        "model.pkl": ("pickle", True),
        "more": ("sub-folder", True),
        "notes": ("unknown-format", False),
        "nowhere": ("link", False),
        "pipe": ("not-a-file", False),
        "report.json": ("own-file", False),
        "s.safetensors": ("own-file", False),
        "weights.dat": ("pickle", True),
    }
    assert skipped == junk
    models, skipped = named(look_into(uploads, registry.adapters, recursive=True), uploads)
    assert models == ["a.toy", "b.toy", "more/c.toy", "more/deeper/d.toy"]
    inside = {name: said for name, said in junk.items() if said[0] != "sub-folder"}
    assert skipped == inside | {"logs/log.txt": ("unknown-format", False)}
    # Of a glob, what matches.
    models, skipped = named(look_at(uploads.glob("*o*"), registry.adapters), uploads)
    assert models == ["a.toy", "b.toy"]
    assert skipped == {name: said for name, said in junk.items() if "o" in name}


def test_reasons_name_what_helps(uploads: Path, registry: Registry) -> None:
    found = look_into(uploads, registry.adapters)
    reasons = {Path(one.name).name: one.reason for one in found.skipped}
    assert "2 models" in reasons["more"]
    assert "no model" in reasons["logs"]
    assert ".txt" in reasons["README.txt"]
    codes = [code for code, _ in by_code(found.skipped)]
    assert codes == sorted(codes, key=list(SKIPPED).index)
    assert sum(len(some) for _, some in by_code(found.skipped)) == len(found.skipped)


def test_weights_of_another_model_are_told_of_if_they_could_be_judged(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("decoy.toy", "shard.bin", "stolen.toy"):
        toys.save_model(tmp_path / name, seed=3)
    (tmp_path / "decoy.data").write_text("x")
    decoy = tmp_path / "decoy.toy"
    owners = dict.fromkeys(("stolen.toy", "decoy.data", "shard.bin"), decoy)
    monkeypatch.setattr(type(registry.adapters), "parts", lambda self, models: owners)
    monkeypatch.setattr(type(registry.adapters), "reads", lambda self, path: path.suffix in (".toy", ".bin"))
    found = look_into(tmp_path, registry.adapters)
    # A model is not hidden by another one that claims it.
    assert found.models == (str(decoy), str(tmp_path / "stolen.toy"))
    assert [(one.name, one.code) for one in found.skipped] == [(str(tmp_path / "shard.bin"), "part-of-model")]
    assert "decoy.toy" in found.skipped[0].reason
    assert found.skipped[0].unjudged
    # An index of weights is opened with them.
    monkeypatch.setattr(type(registry.adapters), "parts", lambda self, models: {"shard.bin": tmp_path / "index.json"})
    [part] = [one for one in look_into(tmp_path, registry.adapters).skipped if one.code == "part-of-model"]
    assert not part.unjudged


def test_sub_folders_have_an_end(uploads: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_PEEK", 2)
    _, skipped = named(look_into(uploads, registry.adapters), uploads)
    assert skipped["more"] == ("sub-folder", True)
    deep = uploads / "/".join("d" * 70)
    deep.mkdir(parents=True)
    found = look_into(uploads, registry.adapters, recursive=True)
    assert [one.code for one in found.skipped if "/d/d/d/" in one.name] == ["sub-folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read(uploads: Path, registry: Registry) -> None:
    for name in ("more", "notes"):
        (uploads / name).chmod(0)
    try:
        _, skipped = named(look_into(uploads, registry.adapters, recursive=True), uploads)
        assert skipped["more"] == skipped["notes"] == ("cannot-read", True)
    finally:
        (uploads / "more").chmod(0o700)


def test_a_folder_that_is_gone(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "gone").mkdir()
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(ModelError) as caught:
        look_into(tmp_path / "gone", registry.adapters)
    assert caught.value.code == "not-a-file"
