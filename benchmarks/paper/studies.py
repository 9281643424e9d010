"""The studies: their victims, their data, and the commands that make and judge their models."""

import runpy
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np

# The paper's own distances.
BLACK_BOX, WHITE_BOX = ("robd-reference", "jsd-reference"), ("nod", "nad", "lod", "lad")
METRICS = (*BLACK_BOX, *WHITE_BOX)

FINE_TUNED = ("ft-ll", "ft-al", "rt-al", "p-20", "p-60")
EXTRACTED = ("jba", "knockoff", "esa")
ADAPTIVE = ("adapt-b", "adapt-w", "adv-train", "transfer")
PRACTICE = ("quantize-int8", "float16", "permute-rescale", "weight-noise", "distill")
FAMILIES: Mapping[str, Sequence[str]] = {
    "fine-tuned and pruned": FINE_TUNED,
    "extracted": EXTRACTED,
    "adaptive": ADAPTIVE,
    "converted and distilled": PRACTICE,
}


@dataclass(frozen=True)
class Study:
    """One victim, and how many models are made of it.

    Attributes:
        title: What the page calls it.
        prepare: Writes ``train.npz``, ``test.npz``, ``auxiliary.npz`` and the victim to the second folder, from the
            first one of data; returns the victim's path.
        about: What a reader should know of the victim and the data.
        split: Share of the training rows that are the victim's.
        controls: Their number.
        repeat: Models of each attack, by attack.
        training: Options of ``deepjudge zoo`` for the training of controls.
        attacks: Options of attacks, where those of MNIST would take too long or too little.
        suite: Options of ``deepjudge suite``.
    """

    title: str
    prepare: Callable[[Path, Path], Path]
    about: str
    split: float
    controls: int
    repeat: Mapping[str, int]
    training: Sequence[str] = ()
    attacks: Sequence[str] = ()
    suite: Sequence[str] = ()


@dataclass
class Commands:
    """Runs deepjudge commands in a folder, and remembers what they were and how long they took."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __call__(self, *words: object) -> None:
        line = shlex.join(["deepjudge", *map(str, words)])
        self.lines.append(line)
        print(f"$ {line}", flush=True)
        start = time.perf_counter()
        command = [Path(sys.executable).with_name("deepjudge"), *map(str, words)]
        ended = subprocess.run(command, cwd=self.folder, check=False)
        self.seconds += time.perf_counter() - start
        if ended.returncode:
            sys.exit(f"deepjudge {words[0]} ended with the status {ended.returncode}")


def run(study: Study, data: Path, folder: Path) -> Commands:
    """Make the suite, the zoo and its power; what is in the folder already is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    victim = study.prepare(data, folder)
    commands = Commands(folder)
    inputs = ("--inputs", "test.npz", "--training-inputs", "train.npz:x_train")
    suite = ("suite", str(victim), *inputs, *study.suite, "-o", "suite.safetensors")
    if (folder / "suite.safetensors").exists():
        commands.lines.append(shlex.join(["deepjudge", *suite]))
    else:
        commands(*suite)
    zoo = ("zoo", victim, "--data", "train.npz", "--test", "test.npz", "--auxiliary", "auxiliary.npz")
    common = (
        "--suite",
        "suite.safetensors",
        "--split",
        study.split,
        "--control-count",
        study.controls,
        *study.training,
    )
    for number in sorted(set(study.repeat.values()), reverse=True):
        attacks = [attack for attack, repeat in study.repeat.items() if repeat == number]
        options = [
            word for option in study.attacks if option.partition(".")[0] in attacks for word in ("--option", option)
        ]
        commands(*zoo, *common, "--attacks", ",".join(attacks), "--repeat", number, *options, "-o", "zoo")
    commands("power", "suite.safetensors", "zoo", "--metric", ",".join(METRICS), "-o", "power")
    return commands


def _mnist(data: Path, folder: Path) -> Path:
    with np.load(data / "mnist.npz") as rows:
        _write(folder, *(rows[key] for key in ("x_train", "y_train", "x_test", "y_test")))
    with np.load(data / "fashion_mnist.npz") as rows:
        np.savez(folder / "auxiliary.npz", x=_scaled(rows["x_train"]))
    return (data / "victims" / "mnist_lenet5.h5").resolve()


def _cifar(data: Path, folder: Path) -> Path:
    if not (folder / "train.npz").exists():
        unpacked = _unpacked(data)
        _write(folder, *(unpacked[key] for key in ("x_train", "y_train", "x_test", "y_test")))
    with np.load(data / "fashion_mnist.npz") as rows:
        clothes = _scaled(np.pad(rows["x_train"][:10000], ((0, 0), (2, 2), (2, 2))))
    np.savez(folder / "auxiliary.npz", x=np.repeat(clothes[..., None], 3, axis=-1))
    return (data / "victims" / "cifar10_resnet20.h5").resolve()


def _spoken(data: Path, folder: Path) -> Path:
    with np.load(data / "fsdd.npz") as rows:
        order = np.random.default_rng(0).permutation(len(rows["x_train"]))  # stored speaker by speaker
        x, y = rows["x_train"][order].astype(np.float32), rows["y_train"][order]
        np.savez(folder / "train.npz", x_train=x, y_train=y)
        np.savez(folder / "test.npz", x_test=rows["x_test"].astype(np.float32), y_test=rows["y_test"])
    with np.load(data / "fashion_mnist.npz") as rows:
        np.savez(folder / "auxiliary.npz", x=_scaled(np.pad(rows["x_train"][:10000], ((0, 0), (6, 6), (2, 2)))))
    victim = folder / "victim.keras"
    if not victim.exists():
        _train_lstm(x[: len(x) // 2], y[: len(y) // 2], victim)
    return victim.resolve()


def _train_lstm(x: np.ndarray, y: np.ndarray, path: Path) -> None:
    # By Keras's own means, not by those that its thieves are trained with.
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((40, 32)), keras.layers.LSTM(128), keras.layers.Dense(10, activation="softmax")]
    victim = keras.Sequential(layers)
    victim.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    victim.fit(x, y, batch_size=64, epochs=40, verbose=0)
    victim.save(path)


def _write(folder: Path, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> None:
    np.savez(folder / "train.npz", x_train=_scaled(x_train), y_train=y_train)
    np.savez(folder / "test.npz", x_test=_scaled(x_test), y_test=y_test)


def _scaled(pixels: np.ndarray) -> np.ndarray:
    # Bytes are divided by 255 here, so that the commands need not say it.
    return pixels.astype(np.float32) / np.float32(255)


def _unpacked(data: Path) -> Mapping[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cifar10.npz"
        with mock.patch.object(sys, "argv", ["unpack_cifar10.py", str(path)]):
            runpy.run_path(str(data / "unpack_cifar10.py"), run_name="__main__")
        with np.load(path) as arrays:
            return dict(arrays)


STUDIES: Mapping[str, Study] = {
    "mnist": Study(
        title="MNIST, LeNet-5",
        prepare=_mnist,
        about=(
            "The victim is the LeNet-5 that the authors published. By its loss it was trained on about the first "
            "20,000 rows, so that these are its part; thieves have the other 40,000. Auxiliary inputs are "
            "Fashion-MNIST."
        ),
        split=0.333333,
        controls=24,
        repeat=dict.fromkeys(FINE_TUNED, 6)
        | dict.fromkeys(EXTRACTED, 3)
        | dict.fromkeys(ADAPTIVE, 2)
        | dict.fromkeys(PRACTICE, 2),
    ),
    "cifar10": Study(
        title="CIFAR-10, ResNet-20",
        prepare=_cifar,
        about=(
            "The victim is the ResNet-20 that the authors published; the images went through JPEG, so that its "
            "accuracy is lower than theirs. By its loss it was trained on about the first 21,000 rows, its part here; "
            "thieves have the other 29,000. Auxiliary inputs are Fashion-MNIST, padded to 32x32, in three channels."
        ),
        split=0.42,
        controls=6,
        repeat=dict.fromkeys((*FINE_TUNED, *EXTRACTED, *ADAPTIVE, *PRACTICE), 1),
        training=("--epochs", "5", "--rate", "0.005"),
        # A third of the steps that MNIST has, since each takes ten times as long.
        attacks=(
            *(f"{attack}.epochs=1" for attack in (*FINE_TUNED, *ADAPTIVE)),
            *("adv-train.steps=2", "jba.queries=1600", "knockoff.queries=5000", "esa.rounds=10", "distill.epochs=5"),
        ),
    ),
    "spoken": Study(
        title="Spoken digits, LSTM(128)",
        prepare=_spoken,
        about=(
            "The Free Spoken Digit Dataset replaces SpeechCommands, as log-mel spectra, 40 steps of 32 bands. The "
            "victim, an LSTM of 128 units, was trained by Keras on the first half of the rows. Auxiliary inputs are "
            "Fashion-MNIST, padded to 40x32."
        ),
        split=0.5,
        controls=12,
        repeat=dict.fromkeys(FINE_TUNED[:2], 3)
        | dict.fromkeys(FINE_TUNED[2:], 2)
        | dict.fromkeys((*EXTRACTED, *ADAPTIVE, *PRACTICE), 1),
        training=("--epochs", "30", "--rate", "0.005"),
        suite=("-n", "200"),
    ),
}
