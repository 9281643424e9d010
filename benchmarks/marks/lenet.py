"""The authors' LeNet-5 in PyTorch, where a step takes half as long as in Keras, and others of its architecture."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

_BATCH, _RATE = 64, 3e-3
_SIDE = 28


class LeNet(nn.Module):
    """The network of the paper: two convolutions, two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5, padding=2)
        self.fc1, self.fc2, self.fc3 = nn.Linear(784, 120), nn.Linear(120, 84), nn.Linear(84, 10)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, 1, 28, 28)`` to logits ``(n, 10)``."""
        x = self.pool(self.relu(self.conv1(x)))
        x = torch.flatten(self.pool(self.relu(self.conv2(x))), 1)
        return self.fc3(self.relu(self.fc2(self.relu(self.fc1(x)))))


def convert(keras_file: Path, program: Path) -> None:
    """Write the network that the authors published as a program of PyTorch."""
    import keras

    held = keras.models.load_model(keras_file, compile=False)
    arrays = {layer.name: layer.get_weights() for layer in held.layers if layer.get_weights()}
    network = LeNet()
    for name, source in (("conv1", "block1_conv1"), ("conv2", "block2_conv1")):
        kernel, bias = arrays[source]
        _set(getattr(network, name), kernel.transpose(3, 2, 0, 1), bias)
    for name, source in (("fc1", "fc1"), ("fc2", "fc2"), ("fc3", "before_softmax")):
        kernel, bias = arrays[source]
        if name == "fc1":  # Keras flattens the channels last
            kernel = kernel.reshape(7, 7, 16, -1).transpose(2, 0, 1, 3).reshape(784, -1)
        _set(getattr(network, name), kernel.T, bias)
    batch = torch.export.Dim("batch", min=1)
    example = (torch.zeros(2, 1, _SIDE, _SIDE),)
    torch.export.save(torch.export.export(network.eval(), example, dynamic_shapes=({0: batch},)), program)


def train(x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], seed: int) -> LeNet:
    """A network from fresh weights, after one pass over ``x`` ``(n, 1, 28, 28)`` and their classes ``y``."""
    torch.manual_seed(seed)
    network = LeNet().to(memory_format=torch.channels_last)
    order = torch.randperm(len(x))
    steps = len(x) // _BATCH
    adam = torch.optim.Adam(network.parameters(), fused=True)
    rates = torch.optim.lr_scheduler.OneCycleLR(adam, _RATE, steps)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for step in range(steps):
        rows = order[step * _BATCH : (step + 1) * _BATCH]
        batch = inputs[rows].contiguous(memory_format=torch.channels_last)
        adam.zero_grad()
        functional.cross_entropy(network(batch), labels[rows]).backward()
        adam.step()
        rates.step()
    return network.eval()


def accuracy(network: LeNet, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> float:
    """Share of inputs whose most likely class is their label."""
    with torch.inference_mode():
        return float((network(torch.from_numpy(x)).argmax(1).numpy() == y).mean())


def save_onnx(network: LeNet, path: Path) -> None:
    """Write a network as ONNX, which is opened in an instant."""
    arrays = {name: array.detach().contiguous().numpy() for name, array in network.state_dict().items()}
    nodes, at = [], "x"

    def add(kind: str, *inputs: str, **attributes: object) -> None:
        nonlocal at
        nodes.append(helper.make_node(kind, [at, *inputs], [f"{kind.lower()}{len(nodes)}"], **attributes))
        at = nodes[-1].output[0]

    for name in ("conv1", "conv2"):
        add("Conv", f"{name}.weight", f"{name}.bias", pads=[2, 2, 2, 2])
        add("Relu")
        add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    add("Flatten")
    for name in ("fc1", "fc2", "fc3"):
        add("Gemm", f"{name}.weight", f"{name}.bias", transB=1)
        if name != "fc3":
            add("Relu")
    graph = helper.make_graph(
        nodes,
        "lenet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, _SIDE, _SIDE])],
        [helper.make_tensor_value_info(at, TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def _set(layer: nn.Module, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> None:
    layer.load_state_dict({"weight": torch.from_numpy(np.ascontiguousarray(weight)), "bias": torch.from_numpy(bias)})
