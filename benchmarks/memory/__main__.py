"""What large ONNX models take: ``python benchmarks/memory [one-file|external ...] -o FOLDER``.

Networks of random weights are written to FOLDER once: one of VGG-19's shape, 575 MB in one file, and one of dense
layers whose 2.6 GB are in an external file, since no ONNX file may be larger than 2 GiB. A process of its own then
opens each. In it, ONNX Runtime alone answers some inputs; deepjudge answers the same, sees all layers, and at last
takes gradients. Needs Linux and the extras of deepjudge.
"""

import argparse
import functools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROWS, CLASSES, SEED = 8, 1000, 0
LIMIT = "<= 2.5"  # times the files
VGG = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0)  # 0 is a pooling
MiB = 2**20

Layers = Iterator[tuple[str, Mapping[str, Any], tuple[int, ...]]]


def one_file(path: Path) -> None:
    """VGG-19, in one file."""
    import onnx

    onnx.save(graph(vgg(), (3, 224, 224), lambda name, values: onnx.numpy_helper.from_array(values, name)), path)


def external(path: Path) -> None:
    """Dense layers, whose weights are in another file."""
    from onnx import TensorProto

    with path.with_name("weights.bin").open("wb") as file:

        def write(name: str, values: np.ndarray) -> Any:
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape)
            tensor.data_location = TensorProto.EXTERNAL
            entries = {"location": "weights.bin", "offset": str(file.tell()), "length": str(values.nbytes)}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)
            file.write(values.tobytes())
            return tensor

        path.write_bytes(graph(dense(), (3, 64, 64), write).SerializeToString())


def vgg() -> Layers:
    channels = 3
    for width in VGG:
        if width:
            yield "Conv", {"pads": [1] * 4}, (width, channels, 3, 3)
            yield "Relu", {}, ()
            channels = width
        else:
            yield "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}, ()
    yield from perceptron(channels * 7 * 7, 4096, 4096)


def dense() -> Layers:
    yield from perceptron(3 * 64 * 64, *[8192] * 9)


def perceptron(*widths: int) -> Layers:
    yield "Flatten", {}, ()
    for before, after in zip(widths, (*widths[1:], CLASSES), strict=True):
        yield "Gemm", {"transB": 1}, (after, before)
        if after != CLASSES:
            yield "Relu", {}, ()


def graph(layers: Layers, shape: tuple[int, ...], stored: Callable[[str, np.ndarray], Any]) -> Any:
    """A network of these layers: operations, their attributes, and the shapes of their weights."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(SEED)
    nodes, weights, last = [], [], "x"
    for place, (kind, attributes, size) in enumerate(layers):
        names = [f"w{place}", f"b{place}"] if size else []
        if size:
            scale = np.float32(np.sqrt(2 / np.prod(size[1:])))
            weights.append(stored(names[0], rng.standard_normal(size, np.float32) * scale))
            weights.append(stored(names[1], np.zeros(size[:1], np.float32)))
        nodes.append(helper.make_node(kind, [last, *names], [f"t{place}"], **attributes))
        last = f"t{place}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", CLASSES])
    network = helper.make_graph(nodes, "network", [x], [y], weights)
    return helper.make_model(network, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# ---- what runs in a process of its own


def inputs(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(SEED).random((ROWS, *shape), np.float32)


def plain(path: Path) -> None:
    """ONNX Runtime alone; in batches, as deepjudge has them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in np.array_split(inputs(tuple(session.get_inputs()[0].shape[1:])), 2):
        session.run(None, {"x": batch})


def ours(path: Path) -> None:
    """The same and all layers by deepjudge, in this process."""
    from deepjudge_core import open_model

    ask(open_model(path))


def confined(path: Path) -> None:
    """The same by deepjudge in a worker."""
    from deepjudge_core.sandbox.policy import Sandbox
    from deepjudge_core.sandbox.remote import open_isolated

    with open_isolated(path, sandbox=Sandbox(memory=8 * 2**30, timeout=1200)) as model:
        ask(model)


def gradients(path: Path) -> None:
    """And gradients, for which the model is converted to PyTorch."""
    from deepjudge_core import open_model

    model = open_model(path)
    model.gradient(inputs(model.input.shape)[:1], lambda scores, rows: np.ones_like(scores))


def ask(model: Any) -> None:
    x = inputs(model.input.shape)
    model.predict(x)
    model.activations(x, list(model.layers))


MODELS: Mapping[str, Callable[[Path], None]] = {"one-file": one_file, "external": external}
WAYS: Mapping[str, Callable[[Path], None]] = {
    function.__name__: function for function in (plain, ours, confined, gradients)
}


def measure(way: str, path: Path) -> dict[str, float]:
    """Seconds, and the greatest memory in MiB that a process had, and one of its children."""
    command = [sys.executable, __file__, "--measure", way, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{way}: {run.stderr[-2000:]}")
    return dict(json.loads(run.stdout.splitlines()[-1]))


def measured(way: str, path: Path) -> None:
    start = time.perf_counter()
    WAYS[way](path)
    seconds = time.perf_counter() - start
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    # Of this program alone: what getrusage says of a process counts what started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own = int(status["VmHWM"].split()[0]) / 2**10
    print(json.dumps({"seconds": seconds, "own": own, "worker": worker}))


def row(model: str, size: float, alone: float, who: str, seconds: float, memory: float, limit: str = "") -> None:
    ratios = f"{memory / size:.2f} | {limit} | {seconds / alone:.1f}"
    print(f"| {model} | {who} | {ratios} | {memory:.0f} MiB, {seconds:.1f} s |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="|".join(MODELS), help="default: all")
    parser.add_argument("-o", "--out", type=Path, help="where the models are written")
    parser.add_argument("--without-gradients", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measured(arguments.measure[0], Path(arguments.measure[1]))
        return
    if arguments.out is None:
        parser.error("-o FOLDER is needed")
    print("| model | who | memory / files | wanted, at most | time / ONNX Runtime alone | detail |")
    print(f"|{' --- |' * 6}")
    for name in arguments.models or MODELS:
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.onnx"
        if not path.exists():
            MODELS[name](path)
        size = sum(file.stat().st_size for file in folder.iterdir()) / MiB
        alone = measure("plain", path)
        show = functools.partial(row, f"{name}, {size:.0f} MiB", size, alone["seconds"])
        show("ONNX Runtime alone", alone["seconds"], alone["own"])
        run = measure("ours", path)
        show("deepjudge, in its own process", run["seconds"], run["own"], LIMIT)
        run = measure("confined", path)
        show("deepjudge, the worker", run["seconds"], run["worker"], LIMIT)
        show("deepjudge, the worker's parent", run["seconds"], run["own"])
        if not arguments.without_gradients:
            run = measure("gradients", path)
            show("gradients, in its own process", run["seconds"], run["own"])


if __name__ == "__main__":
    main()
