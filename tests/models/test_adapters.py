"""What adapters do alike."""

import errno
import os
from pathlib import Path

import pytest
import toys
from refusals import refused

from deepjudge_core.errors import MissingExtraError, ModelError
from deepjudge_core.models.adapters import Extra, name_of, prefixed, readable, rehearse
from deepjudge_core.models.model import Access, Cotangent
from deepjudge_core.testing.view import View
from deepjudge_core.types import Array

EXTRA = Extra("A Framework", "framework", ("framework", "its_library"))


@pytest.mark.parametrize("module", ["framework", "framework.part", "its_library"])
def test_a_missing_framework_is_named(module: str) -> None:
    with refused(MissingExtraError, "m: ", "A Framework", "deepjudge[framework]"), EXTRA.needed_by("m"):
        raise ModuleNotFoundError(name=module)


@pytest.mark.parametrize("module", ["frameworks", "another", None])
def test_what_else_is_missing_is_not_its_fault(module: str | None) -> None:
    with pytest.raises(ModuleNotFoundError), EXTRA.needed_by("m"):
        raise ModuleNotFoundError(name=module)


def test_sources_are_called_by_their_path_or_class() -> None:
    assert name_of(Path("folder/m.onnx")) == str(Path("folder/m.onnx"))
    assert name_of(toys.make_model()) == "NumpyModel"


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "missing"
    with refused(ModelError, "m: ", "a model", os.strerror(errno.ENOENT)), readable("m", "a model"):
        path.read_bytes()


def test_errors_of_models_get_the_models_name() -> None:
    with refused(ModelError, "m: no layers") as caught, prefixed("m"):
        raise ModelError("no layers")
    assert isinstance(caught.value.__cause__, ModelError)


@pytest.mark.parametrize("gradients", [True, False])
def test_a_rehearsal_asks_everything_that_may_be_asked(gradients: bool) -> None:
    class Counting(toys.NumpyModel):
        calls = 0

        def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
            self.calls += 1
            assert x.shape == (2, *toys.SHAPE)
            return super().gradient(x, cotangent, layer=layer)

    model = Counting(toys.make_model().weights, toys.SHAPE)
    rehearse(model, gradients=gradients)
    assert model.calls == gradients
    rehearse(View(model, access=Access.WHITE_BOX), gradients=gradients)  # which refuses what it may not be asked
    assert model.calls == gradients
