"""A tiny model of the adapter's own, taken through all that is asked of models."""

import io
import linecache
import sys
import tempfile
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from deepjudge_core.models.adapters import rehearse
from deepjudge_torch.hooks import HookedModel
from deepjudge_torch.opening import open_source


class Network(nn.Module):  # type: ignore[misc]  # torch ships no types
    """Of the layers that most networks are made of; a picture's rows are the steps of the recurrent one."""

    input_shape = (1, 4, 4)

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2))
        self.recurrent = nn.LSTM(4, 3, batch_first=True)
        self.classes = nn.Sequential(nn.Dropout(), nn.Linear(3, 2), nn.Softmax(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Answer with probabilities."""
        steps, _ = self.recurrent(self.features(x).movedim(1, 2).flatten(2))
        answer: torch.Tensor = self.classes(steps[:, -1])
        return answer


def warm_up(*, gradients: bool) -> None:
    """Open files of weights and run what comes of them: exported, and as it is where torch cannot export it."""
    # torch.export notes where in the source its operations come from.
    for name, module in sorted(sys.modules.items()):
        if name.startswith("torch.nn.modules."):
            linecache.getlines(str(module.__file__))
    network = Network()
    state = network.state_dict()
    saved = io.BytesIO()
    torch.save(state, saved)
    old = io.BytesIO()
    torch.save(state, old, _use_new_zipfile_serialization=False)
    files = {".pt": saved.getvalue(), ".pth": old.getvalue(), ".safetensors": safetensors.torch.save(state)}
    with tempfile.TemporaryDirectory() as folder:
        for suffix, data in files.items():
            path = Path(folder, f"weights{suffix}")
            path.write_bytes(data)
            arch = f"{__name__}:{Network.__name__}"
            model = open_source(path, name=path.name, batch_size=None, input_shape=None, arch=arch)
            rehearse(model, gradients=gradients)
    hooked = HookedModel(network, name="network", digest=None, batch_size=None, input_shape=Network.input_shape)
    rehearse(hooked, gradients=gradients)
