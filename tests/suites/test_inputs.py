"""Labelled inputs from files, and what is said of files that hold none."""

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepjudge_core import load_inputs
from deepjudge_core.errors import DeepJudgeError, InputError, UsageError
from deepjudge_core.suites.inputs import check_bounds, load_training_inputs

X = np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 2, 2)
Y = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save(**arrays: Any) -> Path:
        np.savez(tmp_path / "in.npz", **arrays)
        return tmp_path / "in.npz"

    return save


def refused(path: Path, said: str, error: type[DeepJudgeError] = InputError, **options: Any) -> None:
    with pytest.raises(error) as caught:
        load_inputs(path, **options)
    assert "\n" not in str(caught.value)
    assert said in str(caught.value)
    if error is InputError:
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("x", "y"), [("x_test", "y_test"), ("x", "y"), ("images", "labels"), ("X", "Y")])
def test_the_usual_keys(save: Callable[..., Path], x: str, y: str) -> None:
    path = save(**{x: X, y: Y, "other": 1})
    for options in ({}, {"x": x}, {"y": y}, {"x": x, "y": y}):
        found = load_inputs(path, **options)
        np.testing.assert_array_equal(found.x, X)
        np.testing.assert_array_equal(found.y, Y)
        assert (found.x.dtype, found.y.dtype, found.training) == (np.float32, np.int64, None)


def test_the_first_of_the_usual_keys(save: Callable[..., Path]) -> None:
    found = load_inputs(save(x=X / 2, y=Y + 1, x_test=X, y_test=Y, x_train=X[:2] / 4))
    np.testing.assert_array_equal(found.x, X)
    np.testing.assert_array_equal(found.training, X[:2] / 4)
    # Only beside x_test are the training inputs those of the same model.
    assert load_inputs(save(x=X, y=Y, x_train=X)).training is None


def test_keys_by_name(save: Callable[..., Path]) -> None:
    found = load_inputs(save(a=X, b=Y), x="a", y="b")
    np.testing.assert_array_equal(found.x, X)


def test_missing_keys(save: Callable[..., Path]) -> None:
    path = save(a=X, b=Y)
    refused(
        path, "expected inputs and labels under one of x_test/y_test, x/y, images/labels, X/Y, data/target, found a, b"
    )
    refused(path, "expected 'c', found a, b", x="c")
    refused(path, "expected 'c', found a, b", x="a", y="c")
    refused(path, "name the labels with --y KEY too", x="a")
    refused(path, "name the inputs with --x KEY too", y="b")
    refused(save(x=X), "expected inputs and labels under one of")
    refused(save(), "found nothing")


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.write_text, (self.marker, "unpickled")


def test_pickles_are_never_read(save: Callable[..., Path], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    objects = np.array([Payload(marker)] * 6, dtype=object)
    refused(save(x=objects, y=Y), "expected a plain array of numbers under 'x', found objects (pickles are never read)")
    refused(save(x=X, y=objects), "expected a plain array of numbers under 'y', found objects (pickles are never read)")
    path = tmp_path / "pickle.npz"
    path.write_bytes(pickle.dumps(Payload(marker)))
    refused(path, "expected an .npz file, found something else or a damaged one")
    assert not marker.exists()
    pickle.loads(path.read_bytes())  # the payload does what it should not
    assert marker.exists()


def test_what_is_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    refused(path, "no such file")
    refused(tmp_path, "expected an .npz file, found a folder")
    for content in (b"", b"no zip", b"PK\x03\x04", bytes(100)):
        path.write_bytes(content)
        refused(path, "expected an .npz file, found something else or a damaged one")
    with path.open("wb") as file:
        np.save(file, X)
    refused(path, "expected an .npz file with inputs and labels, found a single array")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", "{}")
        archive.writestr("x", "text")
        archive.writestr("y", "text")
    refused(path, "expected a plain array of numbers under 'x', found another file")
    refused(path, "expected a plain array of numbers under 'model.json', found another file", x="model.json", y="y")


def test_a_file_that_was_cut_off(save: Callable[..., Path]) -> None:
    path = save(x=X, y=Y)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        refused(path, "")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_with_a_byte_changed(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "in.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=X, y=Y)
    whole = path.read_bytes()
    for place in range(0, len(whole), 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            load_inputs(path)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        # Nothing else is raised; what is not refused is where zip files keep dates and the like.


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**9)})
    path = tmp_path / "in.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", header.getvalue())
    refused(path, "expected a plain array of numbers under 'x', found a damaged array")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e300])
def test_inputs_that_are_no_numbers(save: Callable[..., Path], wrong: float) -> None:
    x = X.astype(np.float64)
    x[3, 1, 1] = wrong
    with warnings.catch_warnings(action="error"):
        refused(save(x=x, y=Y), "expected finite inputs under 'x', found NaN or infinity")


def test_inputs_of_another_kind(save: Callable[..., Path]) -> None:
    refused(save(x=np.array(["a"] * 6), y=Y), "expected a plain array of numbers under 'x', found <U1")
    refused(save(x=X.astype(np.complex64), y=Y), "expected a plain array of numbers under 'x', found complex64")
    refused(save(x=np.float32(1), y=Y), "expected inputs with a batch axis under 'x', found shape ()")
    refused(save(x=X[:, 0, 0], y=Y), "expected inputs with a batch axis under 'x', found shape (6,)")
    refused(save(x=X[:0], y=Y[:0]), "expected inputs under 'x', found none")
    refused(save(x=X[:, :0], y=Y), "expected inputs under 'x', found none")
    assert load_inputs(save(x=X > 0.5, y=Y)).bounds == (0, 1)


def test_labels(save: Callable[..., Path]) -> None:
    for y in (Y.astype(np.float32), Y.astype(np.uint8), Y[:, None], Y.astype(np.float64)[:, None]):
        np.testing.assert_array_equal(load_inputs(save(x=X, y=y)).y, Y)
    with warnings.catch_warnings(action="error"):
        for wrong in (Y + 0.5, np.where(Y == 1, np.nan, Y), np.where(Y == 1, np.inf, Y), np.where(Y == 1, 1e30, Y)):
            refused(save(x=X, y=wrong), "expected whole class numbers under 'y', found others")
    refused(save(x=X, y=np.eye(6)), "expected one class number per input under 'y', found shape (6, 6)")
    refused(save(x=X, y=np.int64(1)), "expected one class number per input under 'y', found shape ()")
    refused(save(x=X, y=Y[:5]), "expected as many labels as inputs, found 6 inputs and 5 labels")


@pytest.mark.parametrize(
    ("x", "scale", "bounds"),
    [
        (X, 1, (0, 1)),
        (X / 2, 1, (0, 1)),
        (X * 2 - 1, 1, (-1, 1)),
        (X * 1.5 - 1, 1, (-1, 1)),
        ((X * 20).round().astype(np.uint8), 1, (0, 255)),
        (np.ones((6, 2), np.uint8), 1, (0, 255)),
        ((X * 20).round().astype(np.uint8), 255, (0, 1)),
        ((X * 20).round().astype(np.uint8), -255, (-1, 0)),
        ((X * 255).round(), 1, (0, 255)),
        ((X * 255).round().astype(np.int64), 1, (0, 255)),
        ((X * 255).round().astype(np.int64), 255, (0, 1)),
        ((X * 256).round(), 1, (0, 256)),
        (X * 255, 1, (0, 255)),
        (X * 100 + 0.5, 1, (0.5, 100.5)),
        (X * 6 - 2, 1, (-2, 4)),
    ],
)
def test_bounds(save: Callable[..., Path], x: np.ndarray, scale: float, bounds: tuple[float, float]) -> None:
    found = load_inputs(save(x=x, y=Y), scale=scale)
    assert found.bounds == pytest.approx(bounds)
    np.testing.assert_allclose(found.x, x.astype(np.float64) / scale, rtol=1e-6)
    check_bounds("x", found.x, found.bounds)


def test_bounds_that_are_stated(save: Callable[..., Path]) -> None:
    path = save(x=X, y=Y)
    assert load_inputs(path, bounds=(-5, 5)).bounds == (-5, 5)
    assert load_inputs(path, bounds=(0, 1)).bounds == (0, 1)
    refused(path, "'x': expected inputs within 0..0.5, found 0..1; state their range with --bounds", bounds=(0, 0.5))
    refused(path, "expected inputs within 0.1..1, found 0..1", bounds=(0.1, 1))
    assert load_inputs(path, bounds=(0, 1 / 3), scale=3.0).bounds == (0, 1 / 3)
    for bounds in ((1, 0), (1, 1), (np.nan, 1), (0, np.inf)):
        refused(path, "expected finite bounds LOW < HIGH", UsageError, bounds=bounds)
    for scale in (0, np.nan, np.inf):
        refused(path, "expected a finite scale other than 0", UsageError, scale=scale)
    refused(save(x=np.full((6, 2), 300), y=Y), "expected inputs that differ, found only 300")


def test_bounds_that_no_float32_has() -> None:
    check_bounds("x", np.array([0.1, 0.3], np.float32), (0.1, 0.3))
    with pytest.raises(InputError, match=r"x: expected inputs within 0.1..0.3, found 0.1..0.31"):
        check_bounds("x", np.array([0.1, 0.31], np.float32), (0.1, 0.3))
    with pytest.raises(InputError, match="found nan"):
        check_bounds("x", np.array([np.nan], np.float32), (0, 1))
    with pytest.raises(InputError, match="x: expected inputs, found none"):
        check_bounds("x", X[:0], (0, 1))


def test_training_inputs(save: Callable[..., Path], tmp_path: Path) -> None:
    path = save(x_train=X, x=X / 2, other=X / 4)
    for reference, factor in ((f"{path}", 1), (f"{path}:x", 2), (f"{path}:other", 4)):
        np.testing.assert_array_equal(load_training_inputs(reference), X / factor)
    np.testing.assert_array_equal(load_training_inputs(f"{path}:x", scale=0.5), X)
    np.testing.assert_array_equal(load_training_inputs(str(save(a=Y, x=X))), X)
    with pytest.raises(InputError, match=r"in\.npz: expected 'z', found a, x"):
        load_training_inputs(f"{path}:z")
    with pytest.raises(InputError, match="expected 'a key of training inputs', found q"):
        load_training_inputs(str(save(q=X)))
    with pytest.raises(InputError, match=r"none\.npz: no such file"):
        load_training_inputs(f"{tmp_path / 'none.npz'}:x")
    with pytest.raises(UsageError):
        load_training_inputs(str(path), scale=0)
    odd = tmp_path / "a:b.npz"
    np.savez(odd, x=X)
    np.testing.assert_array_equal(load_training_inputs(str(odd)), X)
    np.testing.assert_array_equal(load_training_inputs(f"{odd}:x"), X)
