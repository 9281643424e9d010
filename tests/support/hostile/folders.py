"""Folders of Hugging Face's classifiers by people who mean harm, that their library has to look at."""

import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import hugging_face
import torch

from hostile.ground import CLASSES, FEATURES, Case, Place
from hostile.plain import Payload
from hostile.programs import MORE

_WAVES = {"conv_dim": (8,), "conv_kernel": (2,), "conv_stride": (1,), "num_labels": CLASSES}


@functools.cache
def _honest() -> Path:
    # Of waves as short as the suite's inputs.
    network = hugging_face.network("Wav2Vec2", **_WAVES)
    assert network(torch.zeros(1, FEATURES)).logits.shape == (1, CLASSES)
    return hugging_face.save(network, Path(tempfile.mkdtemp()))


def folder(change: Callable[[Path, Place], object] = lambda folder, place: None) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        shutil.copytree(_honest(), place.path)
        change(place.path, place)

    return make


def pickled(folder: Path, place: Place) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.weight": Payload(place.marker)}, folder / "pytorch_model.bin")


FOLDERS = {
    "a payload for weights": Case("m", folder(pickled), "cannot-open", MORE),
    "huge layers": Case(
        "m", folder(lambda m, place: hugging_face.change(m, hidden_size=2 * 10**6)), "cannot-open", "numbers"
    ),
    "layers without end": Case(
        "m", folder(lambda m, place: hugging_face.change(m, num_hidden_layers=10**7)), "cannot-open", "more than"
    ),
    "an honest folder": Case("m", folder()),
}
