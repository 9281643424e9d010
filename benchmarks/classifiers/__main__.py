"""What the weights of classifiers tell: the exact test and the matched cosine, on the victims of the method's authors.

``python benchmarks/classifiers lenet5 --data FOLDER -o OUT`` makes copies and controls as files of ``torch.export`` and
state dicts, and compares each with the authors' HDF5 file. What is in the folder already is not made again.
``--also`` compares other files, too.
"""

import argparse
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from deepjudge_weights.metrics import wcos
from making import controls, copies
from networks import LeNet, ResNet, Rows
from onnxruntime import quantization
from torch import nn

from deepjudge_core.components.values import Answers
from deepjudge_core.components.weights import open_weights
from deepjudge_core.testing.weights import ArrayWeights
from deepjudge_core.weights.order import order_test
from deepjudge_core.weights.sketching import sketch

VICTIMS = {"lenet5": ("mnist_lenet5.h5", LeNet), "resnet20": ("cifar10_resnet20.h5", ResNet)}
EPS = {"lenet5": 0.1, "resnet20": 0.03}
CONTROL = "control"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("victim", choices=list(VICTIMS))
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data and victims/")
    parser.add_argument("--steps", type=int, default=60, help="of training, of a copy")
    parser.add_argument("--control-steps", type=int, default=120, help="of training, of a control")
    parser.add_argument("--controls", type=int, default=60)
    parser.add_argument("--fresh", type=int, default=200, help="networks of random weights, in the victim's shapes")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="other files to be compared")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file, kind = VICTIMS[arguments.victim]
    path = arguments.data / "victims" / file
    _make(path, kind, arguments)
    _measure(path, [*sorted(arguments.out.iterdir()), *arguments.also])
    _measure_fresh(path, arguments.fresh)


def _make(path: Path, kind: type, arguments: argparse.Namespace) -> None:
    # A chain of layers is found without a graph, which takes longer to make than to train these.
    suffix = ".pth" if kind is LeNet else ".pt2"
    names = [arguments.out / f"{CONTROL} {place:03d}{suffix}" for place in range(arguments.controls)]
    converted = arguments.out / "converted.pt2"
    if converted.exists() and all(name.exists() for name in names):
        return
    victims, own, probes = _rows(arguments.victim, arguments.data)
    if not converted.exists():
        victim = kind.of_authors(path)
        for name, made in copies(victim, own, probes, arguments.steps, EPS[arguments.victim]):
            _export(made, kind.shape, arguments.out / f"{name}.pt2")
        _export(victim, kind.shape, converted)
        _convert(victim, probes[0], arguments.out)
    missing = [place for place, name in enumerate(names) if not name.exists()]
    made = controls(kind, [victims, own], arguments.control_steps, missing)
    for name, network in zip((names[place] for place in missing), made, strict=True):
        if suffix == ".pth":
            torch.save(network.state_dict(), name)
        else:
            _export(network, kind.shape, name)


def _rows(victim: str, data: Path) -> Iterator[Rows]:
    """The victim's rows, a thief's, and those of the suite."""
    if victim == "lenet5":
        with np.load(data / "mnist.npz") as held:
            x, y, test, truth = (held[key] for key in ("x_train", "y_train", "x_test", "y_test"))
        x, test = x[:, None], test[:, None]
    else:
        with np.load(data / "cifar10.npz") as held:  # unpacked before
            x, y, test, truth = (held[key] for key in ("x_train", "y_train", "x_test", "y_test"))
        x, test = x.transpose(0, 3, 1, 2), test.transpose(0, 3, 1, 2)
    for part, labels in ((x[:20000], y[:20000]), (x[21000:41000], y[21000:41000]), (test[:200], truth[:200])):
        yield torch.from_numpy(part.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))


def _export(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(torch.export.export(network.eval(), (torch.zeros(2, *shape),)), path)


def _convert(network: nn.Module, x: torch.Tensor, folder: Path) -> None:
    """Write the network as ONNX, and with weights of 8 bits in both forms that ONNX Runtime has."""
    rows = x.numpy()

    class Rows(quantization.CalibrationDataReader):
        batches: Iterator[dict[str, np.ndarray]]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    plain = folder / "converted, ONNX.onnx"
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(network, (x[:2],), plain, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "rows"}})
    for way in ("QDQ", "QOperator"):
        Rows.batches = iter([{"x": rows[:64]}, {"x": rows[64:128]}])
        form = quantization.QuantFormat[way]
        path = folder / f"8 bits, ONNX {way}.onnx"
        quantization.quantize_static(plain, path, Rows(), quant_format=form, per_channel=True)


def _measure(victim: Path, files: list[Path]) -> None:
    with open_weights(victim) as weights:
        plan = weights.plan()
        own = Answers(np.empty(0), weights=weights.sketch(plan, victim=True))
    notes = ""
    found: dict[str, list[tuple[float, int, int, float]]] = {}
    for file in files:
        with open_weights(file) as weights:
            other = Answers(np.empty(0), weights=weights.sketch(plan))
        assert own.weights is not None
        assert other.weights is not None
        test = order_test(own.weights, other.weights)
        assert test is not None
        name = re.sub(r" \d+$", "", file.stem)
        found.setdefault(name, []).append((test.log10_p, test.agreeing, test.compared, wcos(own, other)))
    print("| models | number | neurons in the victim's order | p at most | 1 - matched cosine |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, rows in found.items():
        p, agreeing, compared, distances = (np.array(column) for column in zip(*rows, strict=True))
        order = f"{agreeing.min()} to {agreeing.max()}" if len(rows) > 1 else f"{agreeing[0]}"
        least = f"{10 ** p.min():.2g}" if p.min() > -4 else f"1e{p.max():.0f}"
        spread = f"{distances.min():.3f} to {distances.max():.3f}" if len(rows) > 1 else f"{distances[0]:.3f}"
        print(f"| {name} | {len(rows)} | {order} of {compared[0]} | {least} | {spread} |")
        if name == CONTROL:
            notes = f"{CONTROL}s: {np.mean(10.0**p <= 0.05):.1%} at p <= .05, least {10 ** p.min():.2g}"
    print(f"\n{notes}")


def _measure_fresh(victim: Path, count: int) -> None:
    """Compare networks that nobody trained."""
    random = np.random.default_rng(1)
    chances, distances = [], []
    with open_weights(victim) as weights:
        plan, held = weights.plan(), weights.weights
        own = Answers(np.empty(0), weights=weights.sketch(plan, victim=True))
        for _ in range(count):
            arrays = {name: random.normal(size=spec.shape) for name, spec in held.tensors.items()}
            other = Answers(np.empty(0), weights=sketch(ArrayWeights(arrays, roles=held.roles), plan))
            assert own.weights is not None
            assert other.weights is not None
            test = order_test(own.weights, other.weights)
            assert test is not None
            chances.append(10.0**test.log10_p)
            distances.append(wcos(own, other))
    share, least = np.mean(np.array(chances) <= 0.05), min(chances)
    print(f"{count} of random weights: {share:.1%} at p <= .05, least {least:.2g}, distances from {min(distances):.3f}")


if __name__ == "__main__":
    main()
