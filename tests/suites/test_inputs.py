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
import toys
from refusals import refused

from deepjudge_core import Inputs, load_inputs, select_seeds
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


def refuses(path: Path, *facts: object, error: type[DeepJudgeError] = InputError, **options: Any) -> None:
    code = "wrong-value" if error is UsageError else None
    with refused(error, *(() if error is UsageError else (path,)), *facts, code=code):
        load_inputs(path, **options)


@pytest.mark.parametrize(("x", "y"), [("x_test", "y_test"), ("x", "y"), ("images", "labels"), ("X", "Y")])
def test_the_usual_keys(save: Callable[..., Path], x: str, y: str) -> None:
    path = save(**{x: X, y: Y, "other": 1})
    for options in ({}, {"x": x}, {"y": y}, {"x": x, "y": y}):
        inputs = load_inputs(path, **options)
        np.testing.assert_array_equal(inputs.x, X)
        np.testing.assert_array_equal(inputs.y, Y)
        assert (inputs.x.dtype, inputs.y.dtype, inputs.training) == (np.float32, np.int64, None)


def test_the_first_of_the_usual_keys(save: Callable[..., Path]) -> None:
    inputs = load_inputs(save(x=X / 2, y=Y + 1, x_test=X, y_test=Y, x_train=X[:2] / 4))
    np.testing.assert_array_equal(inputs.x, X)
    np.testing.assert_array_equal(inputs.training, X[:2] / 4)
    # Only beside x_test are the training inputs those of the same model.
    assert load_inputs(save(x=X, y=Y, x_train=X)).training is None


def test_keys_by_name(save: Callable[..., Path]) -> None:
    inputs = load_inputs(save(a=X, b=Y), x="a", y="b")
    np.testing.assert_array_equal(inputs.x, X)


def test_missing_keys(save: Callable[..., Path]) -> None:
    path = save(a=X, b=Y)
    refuses(path, "x_test/y_test, x/y, images/labels, X/Y, data/target", "a, b")
    for said, code, fact in (
        ({"x": "c"}, "unknown-name", "'c'"),
        ({"x": "a", "y": "c"}, "unknown-name", "'c'"),
        ({"x": "a"}, "missing-value", "y="),
        ({"y": "b"}, "missing-value", "x="),
    ):
        with refused(UsageError, path, "a, b", fact, code=code):
            load_inputs(path, **said)
    refuses(save(x=X), "x_test/y_test")
    refuses(save(), "nothing")


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.write_text, (self.marker, "unpickled")


def test_pickles_are_never_read(save: Callable[..., Path], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    objects = np.array([Payload(marker)] * 6, dtype=object)
    refuses(save(x=objects, y=Y), "'x'", "objects", "pickles")
    refuses(save(x=X, y=objects), "'y'", "objects", "pickles")
    path = tmp_path / "pickle.npz"
    path.write_bytes(pickle.dumps(Payload(marker)))
    refuses(path, ".npz")
    assert not marker.exists()
    pickle.loads(path.read_bytes())  # the payload does what it should not
    assert marker.exists()


def test_what_is_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    with refused(InputError, path, code="cannot-read"):
        load_inputs(path)
    with refused(InputError, tmp_path, ".png"):
        load_inputs(tmp_path)
    for content in (b"", b"no zip", b"PK\x03\x04", bytes(100)):
        path.write_bytes(content)
        refuses(path, ".npz")
    with path.open("wb") as file:
        np.save(file, X)
    refuses(path, ".npz", "single array")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", "{}")
        archive.writestr("x", "text")
        archive.writestr("y", "text")
    refuses(path, "'x'", "another file")
    refuses(path, "'model.json'", "another file", x="model.json", y="y")


def test_a_file_that_was_cut_off(save: Callable[..., Path]) -> None:
    path = save(x=X, y=Y)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        refuses(path)


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
    refuses(path, "'x'", "damaged")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e300])
def test_inputs_that_are_no_numbers(save: Callable[..., Path], wrong: float) -> None:
    x = X.astype(np.float64)
    x[3, 1, 1] = wrong
    with warnings.catch_warnings(action="error"):
        refuses(save(x=x, y=Y), "'x'", "NaN")


@pytest.mark.parametrize("x", [[[1, 2], [3]], [np.zeros(3), np.zeros(4)], ["a", "b"], [[1j, 2], [3, 4]], [None, None]])
def test_inputs_that_are_no_one_array(x: Any) -> None:
    victim = toys.make_model()
    with refused(InputError, "inputs", "array of real numbers"):
        select_seeds(victim, x, np.zeros(2, int))
    with refused(InputError, "inputs", "array of real numbers"):
        Inputs(x, np.zeros(2, int))
    with refused(InputError, "labels", "array of real numbers"):
        Inputs(np.zeros((2, 12)), [[0], [0, 1]])


def test_inputs_of_another_kind(save: Callable[..., Path]) -> None:
    refuses(save(x=np.array(["a"] * 6), y=Y), "'x'", "<U1")
    refuses(save(x=X.astype(np.complex64), y=Y), "'x'", "complex64")
    refuses(save(x=np.float32(1), y=Y), "'x'", "()")
    refuses(save(x=X[:, 0, 0], y=Y), "'x'", "(6,)")
    refuses(save(x=X[:0], y=Y[:0]), "'x'")
    refuses(save(x=X[:, :0], y=Y), "'x'")
    assert load_inputs(save(x=X > 0.5, y=Y)).bounds == (0, 1)


def test_labels(save: Callable[..., Path]) -> None:
    for y in (Y.astype(np.float32), Y.astype(np.uint8), Y[:, None], Y.astype(np.float64)[:, None]):
        np.testing.assert_array_equal(load_inputs(save(x=X, y=y)).y, Y)
    with warnings.catch_warnings(action="error"):
        for wrong in (Y + 0.5, np.where(Y == 1, np.nan, Y), np.where(Y == 1, np.inf, Y), np.where(Y == 1, 1e30, Y)):
            refuses(save(x=X, y=wrong), "'y'")
    refuses(save(x=X, y=2 * np.eye(6)), "'y'", "(6, 6)")
    refuses(save(x=X, y=np.int64(1)), "'y'", "()")
    refuses(save(x=X, y=Y[:5]), 6, 5)


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
    inputs = load_inputs(save(x=x, y=Y), scale=scale)
    assert inputs.bounds == pytest.approx(bounds)
    np.testing.assert_allclose(inputs.x, x.astype(np.float64) / scale, rtol=1e-6)
    check_bounds("x", inputs.x, inputs.bounds)


def test_bounds_that_are_stated(save: Callable[..., Path]) -> None:
    path = save(x=X, y=Y)
    assert load_inputs(path, bounds=(-5, 5)).bounds == (-5, 5)
    assert load_inputs(path, bounds=(0, 1)).bounds == (0, 1)
    refuses(path, "'x'", "0..0.5", "0..1", "bounds=", bounds=(0, 0.5))
    refuses(path, "0.1..1", "0..1", bounds=(0.1, 1))
    assert load_inputs(path, bounds=(0, 1 / 3), scale=3.0).bounds == (0, 1 / 3)
    for bounds in ((1, 0), (1, 1), (np.nan, 1), (0, np.inf)):
        refuses(path, "bounds", error=UsageError, bounds=bounds)
    for scale in (0, np.nan, np.inf):
        refuses(path, "scale", error=UsageError, scale=scale)
    refuses(save(x=np.full((6, 2), 300), y=Y), 300)


def test_bounds_that_no_float32_has() -> None:
    check_bounds("x", np.array([0.1, 0.3], np.float32), (0.1, 0.3))
    with refused(InputError, "x", "0.1..0.3", "0.1..0.31"):
        check_bounds("x", np.array([0.1, 0.31], np.float32), (0.1, 0.3))
    with refused(InputError, "nan"):
        check_bounds("x", np.array([np.nan], np.float32), (0, 1))
    with refused(InputError, "x"):
        check_bounds("x", X[:0], (0, 1))


def test_training_inputs(save: Callable[..., Path], tmp_path: Path) -> None:
    path = save(x_train=X, x=X / 2, other=X / 4)
    for reference, factor in ((f"{path}", 1), (f"{path}:x", 2), (f"{path}:other", 4)):
        np.testing.assert_array_equal(load_training_inputs(reference), X / factor)
    np.testing.assert_array_equal(load_training_inputs(f"{path}:x", scale=0.5), X)
    np.testing.assert_array_equal(load_training_inputs(str(save(a=Y, x=X))), X)
    with refused(UsageError, "in.npz", "'z'", "a, x", code="unknown-name"):
        load_training_inputs(f"{path}:z")
    with refused(InputError, "in.npz", "q"):
        load_training_inputs(str(save(q=X)))
    with refused(InputError, "none.npz", code="cannot-read"):
        load_training_inputs(f"{tmp_path / 'none.npz'}:x")
    with refused(UsageError, "scale", code="wrong-value"):
        load_training_inputs(str(path), scale=0)
    odd = tmp_path / "a:b.npz"
    np.savez(odd, x=X)
    np.testing.assert_array_equal(load_training_inputs(str(odd)), X)
    np.testing.assert_array_equal(load_training_inputs(f"{odd}:x"), X)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_inputs_that_need_no_scale_are_not_divided(tmp_path: Path, dtype: type) -> None:
    x = (np.random.default_rng(0).random((20, 4)) > 0.5).astype(dtype)
    np.savez(tmp_path / "in.npz", x=x, y=np.arange(20) % 2)
    with refused(InputError, "255", "0..1", "scale=", "bounds="):
        load_inputs(tmp_path / "in.npz", scale=255)
    assert load_inputs(tmp_path / "in.npz", scale=255, bounds=(0, 1)).x.max() < 0.01
