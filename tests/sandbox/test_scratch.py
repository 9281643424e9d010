"""The folder of a worker: what is in it is counted and removed, however it was made."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepjudge_core.sandbox import scratch
from deepjudge_core.sandbox.scratch import make_scratch

MOST = 100


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = Path.cwd()
    yield tmp_path
    os.chdir(before)


def nest(top: Path, depth: int) -> None:
    os.chdir(top)
    for _ in range(depth):
        Path("a").mkdir()
        os.chdir("a")
    Path("file").write_text("x")
    os.chdir(top)


def test_what_is_written_is_counted(folder: Path) -> None:
    with make_scratch() as scratch:
        assert scratch.written(MOST) == (0, 0)
        nest(scratch.work, 3)
        size, count = scratch.written(MOST)
        assert count == 4
        assert size > 0
        hidden = scratch.work / "hidden"
        hidden.mkdir()
        (hidden / "file").write_bytes(bytes(2**20))
        hidden.chmod(0)
        assert scratch.written(MOST)[0] >= size + 2**20
        for place in range(2 * MOST):
            (scratch.work / f"{place}").touch()
        assert scratch.written(MOST)[1] > MOST
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("depth", [100, 2500])  # Python calls go 1000 deep, paths 4096 characters
def test_folders_in_folders_have_an_end(depth: int, folder: Path) -> None:
    with make_scratch() as scratch:
        nest(scratch.work, depth)
        assert scratch.written(MOST)[1] > MOST
    assert list(folder.iterdir()) == []


def test_links_are_not_followed(folder: Path) -> None:
    outside = folder / "kept"
    outside.mkdir(0o500)
    with make_scratch() as scratch:
        (scratch.work / "link").symlink_to(outside)
        assert scratch.written(MOST)[1] == 1
    assert outside.stat().st_mode & 0o777 == 0o500
    assert list(folder.iterdir()) == [outside]


def test_a_removal_that_was_ended_is_gone_on_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    making = make_scratch()
    scratch = making.__enter__()
    nest(scratch.work, 2)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            making.__exit__(None, None, None)
    assert scratch.folder.exists()
    with make_scratch() as other:
        assert list(folder.iterdir()) == [other.folder]
    assert list(folder.iterdir()) == []


def test_what_is_in_use_stays(folder: Path) -> None:
    with make_scratch() as first:
        with make_scratch() as second:
            assert set(folder.iterdir()) == {first.folder, second.folder}
        assert set(folder.iterdir()) == {first.folder}


def test_it_is_locked_before_it_can_be_taken_for_abandoned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept = []

    def made_meanwhile(fd: int, how: int) -> None:
        if not swept:
            swept.append(fd)
            with make_scratch():
                pass
        lock(fd, how)

    lock = scratch.fcntl.flock
    monkeypatch.setattr(scratch.fcntl, "flock", made_meanwhile)
    with make_scratch() as mine:
        assert mine.work.is_dir()


def test_folders_of_others_stay(folder: Path) -> None:
    mine = folder / "deepjudge-results"
    mine.mkdir()
    (mine / "report.json").touch()
    with make_scratch():
        pass
    assert (mine / "report.json").exists()
