"""Suspects at addresses: brought here as they are, once, and as hostile as any other file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import toys
from commands import HOW, Cli
from test_fleet import make

from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.errors import DeepJudgeError
from deepjudge_core.files.fetching import fetch, is_address, matches
from deepjudge_core.fleets.planning import Fleet
from deepjudge_core.fleets.store import Store
from deepjudge_core.fleets.work import pack, perform, unpack

fsspec: Any = pytest.importorskip("fsspec", reason="needs fsspec: pip install 'deepjudge[fsspec]'")


@pytest.fixture
def bucket() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


class Hostile(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Holds what its test says, under names and of sizes that are lies."""

    protocol = "hostile"
    cachable = False
    files: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        if path in self.files:
            return {"name": path, "size": self.files[path][0], "type": "file"}
        return {"name": path, "size": 0, "type": "directory"}

    def find(self, path: str, *args: Any, detail: bool = False, **kwargs: Any) -> Any:
        return {name: self.info(name) for name in self.files}

    def ukey(self, path: str) -> str:
        return path

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        import io

        return io.BytesIO(self.files[path][1])


@pytest.fixture
def hostile() -> Iterator[type[Hostile]]:
    fsspec.register_implementation("hostile", Hostile, clobber=True)
    yield Hostile
    Hostile.files = {}


def test_what_is_an_address() -> None:
    texts = ("s3://bucket/m.onnx", "hf://user/model", "file:///m.onnx", "https://api.example", "C:/m", "a/b", "m.onnx")
    assert [is_address(text) for text in texts] == [True, True, True, False, False, False, False]


def test_a_file_is_brought_once_for_each_state(bucket: Any, tmp_path: Path) -> None:
    bucket.pipe("/up/a.onnx", b"1")
    first = fetch("memory://up/a.onnx", tmp_path)
    assert (first.name, first.read_bytes()) == ("a.onnx", b"1")
    inode = first.stat().st_ino
    assert fetch("memory://up/a.onnx", tmp_path).stat().st_ino == inode
    bucket.pipe("/up/a.onnx", b"22")
    assert fetch("memory://up/a.onnx", tmp_path).read_bytes() == b"22"
    assert first.read_bytes() == b"1"


def test_a_folder_is_brought_whole(bucket: Any, tmp_path: Path) -> None:
    for name in ("config.json", "parts/1.safetensors"):
        bucket.pipe(f"/up/model/{name}", name.encode())
    folder = fetch("memory://up/model", tmp_path)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        "config.json",
        "parts/1.safetensors",
    }


def test_a_pattern_stands_for_all_that_match(bucket: Any) -> None:
    for name in ("b.onnx", "a.onnx", "c.txt"):
        bucket.pipe(f"/up/{name}", b"1")
    assert matches("memory:///up/*.onnx") == ("memory:///up/a.onnx", "memory:///up/b.onnx")
    assert matches("memory://up/c.txt") == ("memory://up/c.txt",)


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("memory://up/none.onnx", "not-a-file"),
        ("nosuchkind://up/a.onnx", "wrong-value"),
        ("s3://key:secret@host/a.onnx", "wrong-value"),
        ("zip://a.onnx::memory://up/a.zip", "wrong-value"),
    ],
)
def test_what_cannot_be_fetched_is_refused(address: str, code: str, bucket: Any, tmp_path: Path) -> None:
    with pytest.raises(DeepJudgeError) as raised:
        fetch(address, tmp_path)
    assert raised.value.code == code
    assert "secret" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"model/../../../evil": (1, b"1")}, "wrong-format"),
        ({"model//etc/passwd": (1, b"1")}, "wrong-format"),
        ({"model/a\nb": (1, b"1")}, "wrong-format"),
        ({"model/" + "/".join("d" * 40): (1, b"1")}, "wrong-format"),
        ({"model/more": (1, b"22")}, "wrong-format"),
        ({"model/less": (2, b"1")}, "cannot-read"),
        ({"model/huge": (2**60, b"1")}, "cannot-write"),
        ({f"model/{number}": (1, b"1") for number in range(10_001)}, "cannot-write"),
    ],
    ids=["climbs", "absolute", "control", "deep", "more", "less", "huge", "many"],
)
def test_a_store_that_lies_leaves_nothing(
    files: dict[str, tuple[int, bytes]], code: str, hostile: type[Hostile], tmp_path: Path
) -> None:
    hostile.files = files
    with pytest.raises(DeepJudgeError) as raised:
        fetch("hostile://model", tmp_path / "in")
    assert raised.value.code == code
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_fleet_asks_suspects_at_addresses(cli: Cli, bucket: Any) -> None:
    make(cli)
    for path in Path("up").glob("*.toy"):
        bucket.pipe(f"/up/{path.name}", path.read_bytes())
        path.unlink()
    how = ("-o", "results", "--calibrations", "cal", "--no-sandbox", "--jobs", "1", *HOW)
    status, out, _ = cli("fleet", "suites", "memory:///up/*.toy", *how)
    assert status == 1
    assert "copy.toy" in out
    with Store(Path("results")) as store:
        digest = store.suites()[0].digest
        rows = {member.name for member in store.members(digest)}
    assert rows == {f"memory:///up/{name}.toy" for name in ("copy", "torn", "u11", "u12", "u13")}


def test_a_worker_fetches_what_it_does_not_see(bucket: Any, tmp_path: Path) -> None:
    suite = toys.suite()
    toys.save_model(tmp_path / "copy.toy", seed=0)
    bucket.pipe("/up/copy.toy", (tmp_path / "copy.toy").read_bytes())
    session = Session(toys.registry_of(toys=toys))
    with Store(tmp_path / "results") as store:
        [(_, task)] = Fleet([ModelFile("memory://up/copy.toy")], session).tasks(suite.digest, store)
    assert task is not None
    assert task.address == "memory://up/copy.toy"
    elsewhere = unpack(pack(replace(task, source="/no/such/place/copy.toy", sandbox=None)), type(task))
    result = perform(elsewhere, suite, registry=session.registry)
    assert (result.status, result.reason) == ("answered", None)
    assert result.task.name == "memory://up/copy.toy"
