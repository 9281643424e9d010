"""Pictures as inputs: from class folders and tables, against pixels that the test wrote, and against Pillow."""

import contextlib
import csv
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from refusals import refused

from deepjudge_core import Inputs, InputSpec, Session, load_inputs
from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.errors import DeepJudgeError, InputError, ModelError, UsageError
from deepjudge_core.models.geometry import Canvas, Geometry, bringing
from deepjudge_core.suites.inputs import fitted, load_training_inputs, open_inputs, pictures, reads
from deepjudge_core.suites.settings import SuiteSettings

Image = pytest.importorskip("PIL.Image")

GREY = np.arange(0, 240, 2, dtype=np.uint8).reshape(2, 3, 5, 4)[:, :, :, :]  # classes x pictures x 5 x 4
COLOUR = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 8, 3)).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, pixels in zip(("ant", "bee"), GREY, strict=True):
        for place, one in enumerate(pixels):
            save(tmp_path / "photos" / name / f"{place}.png", one)
    return tmp_path / "photos"


def test_a_folder_is_the_same_as_its_arrays(photos: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "same.npz", x=GREY.reshape(-1, 5, 4), y=np.repeat([0, 1], 3))
    ours, theirs = load_inputs(photos), load_inputs(tmp_path / "same.npz", scale=255)
    np.testing.assert_array_equal(ours.x, theirs.x)
    np.testing.assert_array_equal(ours.y, theirs.y)
    assert (ours.bounds, ours.classes, ours.notes) == (theirs.bounds, ("ant", "bee"), ())
    assert load_inputs(photos, scale=1).bounds == (0, 255)


def test_order_and_names_are_those_of_imagefolder(tmp_path: Path) -> None:
    # By class, then by folder, then by name; 10 stands before 2.
    for place, name in enumerate(("10/b.png", "10/a.PNG", "10/sub/c.png", "2/z.png")):
        save(tmp_path / "in" / name, np.full((4, 4), 10 * place, np.uint8))
    inputs = load_inputs(tmp_path / "in")
    assert (inputs.x[:, 0, 0] * 255).round().tolist() == [10, 0, 20, 30]
    assert inputs.y is not None
    assert inputs.y.tolist() == [0, 0, 0, 1]
    assert inputs.classes == ("10", "2")
    assert any("'2' is class 1" in note for note in inputs.notes)


def test_what_is_left_out_is_said(photos: Path) -> None:
    (photos / "ant" / ".DS_Store").write_bytes(b"x")
    (photos / "ant" / "notes.txt").write_text("x")
    (photos / "bee" / ".cache").mkdir()
    (photos / "cow").mkdir()
    save(photos / "loose.png", GREY[0, 0])
    inputs = load_inputs(photos)
    said = "\n".join(inputs.notes)
    assert len(inputs.x) == 6
    assert inputs.classes == ("ant", "bee", "cow")
    assert all(name in said for name in ("ant/.DS_Store", "ant/notes.txt", "bee/.cache", "3 files", "loose.png", "cow"))


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [
        ("L", "png", 1),
        ("1", "png", 1),
        ("LA", "png", 1),
        ("P", "png", 3),
        ("RGBA", "png", 3),
        ("RGB", "webp", 3),
        ("RGB", "bmp", 3),
        ("P", "gif", 3),
        ("CMYK", "jpg", 3),
    ],
)
def test_modes_and_formats(tmp_path: Path, mode: str, suffix: str, channels: int) -> None:
    whole = Image.fromarray(COLOUR[0, 0]).convert(mode)
    (tmp_path / "in" / "a").mkdir(parents=True)
    path = tmp_path / "in" / "a" / f"one.{suffix}"
    whole.save(path, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB" if channels == 3 else "L")).astype(np.float32) / 255
    inputs = load_inputs(tmp_path / "in")
    np.testing.assert_array_equal(inputs.x[0], expected)
    assert inputs.layout == ("channels_last" if channels == 3 else None)
    assert any("alpha" in note for note in inputs.notes) == (mode in ("RGBA", "LA"))


def test_sixteen_bits(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 65535, 32896]] * 4, np.uint16)
    save(tmp_path / "in" / "a" / "deep.png", deep)
    np.testing.assert_array_equal(load_inputs(tmp_path / "in").x[0, 0] * 255, [0, 1, 255, 128])


def test_pictures_are_turned_as_they_are_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown by a quarter turn clockwise
    save(tmp_path / "in" / "a" / "one.png", COLOUR[0, 0], exif=exif)
    inputs = load_inputs(tmp_path / "in")
    np.testing.assert_array_equal((inputs.x[0] * 255).round(), np.rot90(COLOUR[0, 0], -1))
    assert any("EXIF" in note for note in inputs.notes)


@pytest.mark.parametrize("how", ["crop", "stretch"])
def test_resizing_is_pillows(tmp_path: Path, how: str) -> None:
    big = np.random.default_rng(1).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    save(tmp_path / "in" / "a" / "big.png", big)
    inputs = load_inputs(tmp_path / "in", resize=how, shape=(3, 10, 10))
    size = (10, 10) if how == "stretch" else (13, 10)
    resized = np.asarray(Image.fromarray(big).resize(size, Image.Resampling.BILINEAR))
    expected = resized if how == "stretch" else resized[:, 2:12]
    np.testing.assert_array_equal((inputs.x[0] * 255).round(), expected)
    assert (inputs.fitting, inputs.x.shape) == (how, (1, 10, 10, 3))
    assert any("30x40" in note and "10x10" in note for note in inputs.notes)


def test_the_rule_for_arrays_is_that_for_pictures() -> None:
    # Suites hold arrays, which a suspect of another size gets resized.
    rng = np.random.default_rng(2)
    for size, target in [((30, 40), (10, 10)), ((28, 28), (64, 64)), ((20, 31), (33, 12))]:
        pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        geometry = bringing(size, target, "stretch")
        ours = geometry(pixels[None].astype(np.float64), 2)[0]
        theirs = np.asarray(Image.fromarray(pixels).resize(target[::-1], Image.Resampling.BILINEAR))
        assert np.abs(ours - theirs).max() <= 1.01  # Pillow rounds twice
        first = Geometry(geometry.resize)(pixels[None].astype(np.float64).transpose(0, 3, 1, 2), 0)[0]
        np.testing.assert_allclose(first.transpose(1, 2, 0), ours)
    grey = Geometry(color="grey")(pixels[None].astype(np.float64), 2)[0, ..., 0]
    assert np.abs(grey - np.asarray(Image.fromarray(pixels).convert("L"))).max() <= 0.51
    assert Geometry(color="rgb")(grey[None], None).shape == (1, 20, 31, 3)
    padded = Geometry(crop=(22, 30))(grey[None], None, least=-1.0)[0]
    np.testing.assert_array_equal(padded[1:21], grey[:, 0:30])
    assert (padded[[0, 21]] == -1).all()


def test_grey_for_colour_and_colour_for_grey(photos: Path, tmp_path: Path) -> None:
    for place, pixels in enumerate(COLOUR.reshape(-1, 6, 8, 3)):
        save(tmp_path / "colours" / "a" / f"{place}.png", pixels)
    offered = open_inputs(photos)
    assert offered.expected == InputSpec((5, 4))
    inputs = offered.fitted(InputSpec((3, 5, 4), layout="channels_first"))
    np.testing.assert_array_equal(inputs.x, np.repeat(load_inputs(photos).x[..., None], 3, axis=3))
    assert any("colour" in note for note in inputs.notes)
    grey = open_inputs(tmp_path / "colours").fitted(InputSpec((6, 8, 1)))
    expected = np.asarray(Image.fromarray(COLOUR[0, 0]).convert("L"))
    np.testing.assert_array_equal((grey.x[0] * 255).round(), expected)


def test_pictures_of_several_sizes(photos: Path) -> None:
    save(photos / "bee" / "other.png", np.zeros((9, 9), np.uint8))
    inputs = load_inputs(photos)
    assert inputs.x.shape == (7, 5, 4)  # of most of them
    assert any("2 sizes" in note for note in inputs.notes)
    assert load_inputs(photos, resize="crop:8x6").x.shape == (7, 8, 6)
    with refused(InputError, "5x4", "8x6"):
        open_inputs(photos, resize="stretch:8x6").fitted(InputSpec((5, 4, 1)))
    with refused(UsageError, "'fill'", code="wrong-value"):
        load_inputs(photos, resize="fill")


def test_rows_of_pixels_are_arranged_later(photos: Path) -> None:
    assert open_inputs(photos).fitted(InputSpec((20,))).x.shape == (6, 5, 4)


def test_arrays_are_resized_only_if_that_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=COLOUR.reshape(-1, 6, 8, 3), y=np.arange(6))
    assert open_inputs(tmp_path / "in.npz").fitted(InputSpec((3, 5, 5))).x.shape == (6, 6, 8, 3)
    inputs = open_inputs(tmp_path / "in.npz", resize="stretch").fitted(InputSpec((3, 5, 5)))
    assert (inputs.x.shape, inputs.fitting) == ((6, 5, 5, 3), "stretch")
    assert any("6x8" in note for note in inputs.notes)


def test_unlabelled_pictures(photos: Path) -> None:
    inputs = load_inputs(photos, labels="victim")
    assert (inputs.y, inputs.classes, len(inputs.x)) == (None, None, 6)
    with refused(InputError, photos / "ant", "metadata.csv", "labels"):
        load_inputs(photos / "ant")
    assert len(load_inputs(photos / "ant", labels="victim").x) == 3


def test_parts_of_a_data_set_are_no_classes(photos: Path, tmp_path: Path) -> None:
    photos.rename(tmp_path / "train")
    (tmp_path / "whole").mkdir()
    (tmp_path / "train").rename(tmp_path / "whole" / "train")
    (tmp_path / "whole" / "test").mkdir()
    with refused(InputError, "test, train", tmp_path / "whole" / "train"):
        load_inputs(tmp_path / "whole")


class Model:
    name, classes, input = "victim.toy", 3, InputSpec((5, 4))


def test_names_of_other_classes_than_the_victims(photos: Path) -> None:
    with refused(InputError, "victim.toy", "3 classes", "ant, bee"):
        fitted(open_inputs(photos), Model())  # type: ignore[arg-type]
    (photos / "cow").mkdir()
    assert isinstance(fitted(open_inputs(photos), Model()), Inputs)  # type: ignore[arg-type]


def table(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
        return path
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text("\ufeff" + text.getvalue())
    return path


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t"), ("t.jsonl", "")])
def test_tables(photos: Path, name: str, delimiter: str) -> None:
    rows = [{"n": "a", "file": "bee/0.png", "label": 7}, {"n": "b", "file": "ant/1.png", "label": 2}]
    inputs = load_inputs(table(photos / name, rows, delimiter))
    np.testing.assert_array_equal((inputs.x * 255).round(), [GREY[1, 0], GREY[0, 1]])
    assert inputs.y is not None
    assert (inputs.y.tolist(), inputs.classes) == ([7, 2], None)
    named = load_inputs(table(photos / name, rows, delimiter), x="file", y="n")
    assert named.classes == ("a", "b")


def test_metadata_of_a_folder(photos: Path) -> None:
    rows = [{"file_name": "ant/0.png", "label": "late"}, {"file_name": "bee/0.png", "label": "early"}]
    table(photos / "metadata.jsonl", rows)
    inputs = load_inputs(photos)
    assert inputs.y is not None
    assert (inputs.y.tolist(), inputs.classes) == ([1, 0], ("early", "late"))
    table(photos / "metadata.jsonl", [{"file_name": "ant/0.png", "caption": "x"}])
    assert len(load_inputs(photos).x) == 6  # no labels in it: those of the folders


@pytest.mark.parametrize("place", ["../outside.png", "/etc/passwd", "a/../../outside.png", ".", "a\0b"])
def test_tables_do_not_leave_their_folder(photos: Path, place: str) -> None:
    save(photos.parent / "outside.png", GREY[0, 0])
    path = table(photos / "t.jsonl", [{"file": place, "label": 0}])
    with refused(InputError, path, "inside its folder"):
        load_inputs(path)
    inside = table(photos / "t.jsonl", [{"file": str(photos.absolute() / "ant" / "0.png"), "label": 0}])
    assert len(load_inputs(inside).x) == 1


def test_tables_that_are_none(photos: Path) -> None:
    path = photos / "t.csv"
    for text, *facts in (
        ("", "found none"),
        ("a,b\n1,2\n", "a, b", "x="),
        ("file,b\nant/0.png,2\n", "file, b", "y="),
        ("file,label\nant/0.png\n", "row 2"),
        ("file,label\nant/0.png,\n", "'label'", "entry 1"),
        ("file,label\nant/0.png,-1\n", "-1"),
        ("file,label\nant/9.png,1\n", "ant/9.png"),
        ("file,label\nt.csv,1\n", "t.csv", ".png"),
    ):
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            load_inputs(path)
        assert all(fact in str(caught.value) for fact in facts), caught.value
    path.write_bytes(b"\xff\xfe\x00")
    with refused(InputError, path, "UTF-8"):
        load_inputs(path)
    (photos / "t.jsonl").write_text('{"file": "ant/0.png"\n')
    with refused(InputError, photos / "t.jsonl", "line 1"):
        load_inputs(photos / "t.jsonl")


def test_one_broken_picture_is_named(photos: Path) -> None:
    whole = (photos / "bee" / "1.png").read_bytes()
    broken = photos / "bee" / "1.png"
    for content in (b"", b"text", whole[:30], whole[:60], whole[:50] + b"\0\0\0" + whole[53:]):
        broken.write_bytes(content)
        with refused(InputError, photos, "bee/1.png"):
            load_inputs(photos)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_bomb_is_not_decoded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))
    (photos / "ant" / "bomb.png").write_bytes(bomb)
    with refused(InputError, "ant/bomb.png", "pixels", code="too-large"):
        load_inputs(photos)
    (photos / "ant" / "bomb.png").unlink()
    monkeypatch.setattr(pictures, "LARGEST_ARRAYS", 100)
    with refused(InputError, photos, "480", code="too-large"):
        load_inputs(photos)


def test_links_that_lead_out_of_the_folder_are_told_of(photos: Path, tmp_path: Path) -> None:
    assert not load_inputs(photos).notes
    save(tmp_path / "private" / "secret.png", GREY[0, 0])
    (photos / "ant" / "inside.png").symlink_to("0.png")
    (photos / "bee" / "link.png").symlink_to("../../private/secret.png")
    (photos / "cat").symlink_to(tmp_path / "private")
    [note] = load_inputs(photos).notes
    assert note.startswith("2 files")
    assert {"bee/link.png", "cat/secret.png"} <= set(note.replace(",", " ").split())
    (photos / "table.csv").write_text("path,label\nant/0.png,0\nbee/link.png,1\n")
    [note] = load_inputs(photos / "table.csv").notes
    assert note.startswith("1 file")


def test_a_strip_is_not_enlarged_without_end(photos: Path) -> None:
    # 20 KB of file, which would become 224 x 29 million pixels.
    save(photos / "ant" / "strip.png", np.zeros((1, 2**17), np.uint8))
    with refused(InputError, "ant/strip.png", "224x", code="too-large"):
        load_inputs(photos, shape=(224, 224))
    assert load_inputs(photos, shape=(224, 224), resize="stretch").x.shape == (7, 224, 224)


def test_pickles_and_other_formats_are_not_decoded(photos: Path) -> None:
    tiff = io.BytesIO()
    Image.fromarray(GREY[0, 0]).save(tiff, "TIFF")
    (photos / "ant" / "tiff.png").write_bytes(tiff.getvalue())
    with refused(InputError, "ant/tiff.png"):
        load_inputs(photos)


def test_what_reads_as_inputs(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    looks: Callable[[str], bool] = lambda name: reads(tmp_path / name)  # noqa: E731
    assert all(map(looks, ("photos", "photos/ant", "a.npz", "b.NPY", "c.csv", "d.jsonl")))
    assert not any(map(looks, ("nothing", "a.onnx", "missing")))


def test_canvases() -> None:
    assert Canvas.of(InputSpec((3, 32, 16))) == Canvas(32, 16, 3, 0)
    assert Canvas.of(InputSpec((None, None, 3))) == Canvas(None, None, 3, 2)
    assert Canvas.of(InputSpec((3, 32, 3))) is None
    assert Canvas.of(InputSpec((784,))) is None
    assert issubclass(InputError, DeepJudgeError)


def test_a_folder_has_no_keys(photos: Path) -> None:
    for options in ({"x": "image"}, {"y": "label"}):
        with refused(UsageError, photos, *options.values(), code="conflict"):
            load_inputs(photos, **options)


def test_training_inputs_are_arrays(photos: Path) -> None:
    with refused(InputError, photos, ".npz"):
        load_training_inputs(str(photos))


def test_grey_pictures_for_a_victim_that_takes_colours_and_does_not_say_so(photos: Path) -> None:
    @contextlib.contextmanager
    def opened(expected: InputSpec, *_: Any, **__: Any) -> Iterator[toys.NumpyModel]:
        if len(expected.shape) < len(COLOUR.shape[2:]):
            raise ModelError("expected 3 channels, found none", code="cannot-open")
        yield toys.make_model(2, shape=expected.shape, name="victim", knows=False)

    for empty in ("cat", "dog"):
        (photos / empty).mkdir()
    victim = Subject.of(toys.make_model())
    object.__setattr__(victim, "opened", opened)
    settings = SuiteSettings(n=4, generators=["shove"], force=True)
    suite = make_suite(victim, open_inputs(photos), settings, session=Session(toys.registry(), None))
    assert suite.cases.inputs.shape[1:] == (5, 4, 3)
    assert any("grey" in note for note in suite.notes)
