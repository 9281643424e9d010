"""Makes what the study measures, by the commands that a user types."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from plan import QUICK, SLOW, Plan

_ROWS = 40_000  # of MNIST's training set: the first half is the victim's, the other the thief's
_NONCE = "5e" * 32
_FARM = ("knockoff", "distill", "jba", "adv-train", "ft-al")  # from which conferrable cases are chosen


@dataclass(frozen=True)
class Study:
    """Where all is.

    Attributes:
        out: What is made.
        data: What it is made from.
        independents: Number of models that know no key.
    """

    out: Path
    data: Path
    independents: int

    @property
    def victim(self) -> Path:
        """The network that the authors of the method published."""
        return self.data / "victims" / "mnist_lenet5.h5"

    @property
    def controls(self) -> Path:
        """The zoo of the independents."""
        return self.out / "controls"

    @property
    def farm(self) -> Path:
        """The zoo that keys are made from: references and surrogates of their own."""
        return self.out / "farm"

    def folder(self, plan: Plan) -> Path:
        """Of one key."""
        return self.out / plan.name.replace(", ", "-").replace(" ", "-")

    def key(self, plan: Plan) -> Path:
        """Its file."""
        return self.folder(plan) / "key.safetensors"

    def marked(self, plan: Plan) -> Path:
        """The model that carries it."""
        return self.folder(plan) / "marked.keras" if plan.embedded else self.victim

    def zoo(self, plan: Plan) -> Path:
        """The models that were stolen from that."""
        return self.folder(plan) / "zoo" if plan.embedded else self.out / "zoo"


def make_all(study: Study, plans: Sequence[Plan]) -> None:
    """Make what is not there."""
    study.out.mkdir(parents=True, exist_ok=True)
    _arrays(study)
    _zoo(study, study.victim, study.controls, "--control-count", study.independents, "--controls-only", "--epochs", 1)
    for plan in plans:
        if plan.zoo and not (study.farm / "zoo.json").exists():
            _zoo(
                study,
                study.victim,
                study.farm,
                *("--control-count", 20, "--epochs", 1, "--seed", 7, "--repeat", 1, "--attacks", ",".join(_FARM)),
            )
        _key(study, plan)
    for attacks in (QUICK, SLOW):  # so that all keys have something to be seen, however soon it ends
        for victim, zoo in dict.fromkeys((study.marked(plan), study.zoo(plan)) for plan in plans):
            if victim.exists():
                _zoo(study, victim, zoo, "--control-count", 0, "--repeat", 1, "--attacks", ",".join(attacks))


def _arrays(study: Study) -> None:
    if (study.out / "aux.npz").exists():
        return
    with np.load(study.data / "mnist.npz") as held:
        x, y = held["x_train"][:_ROWS, ..., None], held["y_train"][:_ROWS]
        np.savez(study.out / "train.npz", x_train=x, y_train=y)
        np.savez(study.out / "own.npz", x_train=x[: _ROWS // 2], y_train=y[: _ROWS // 2])
        np.savez(study.out / "test.npz", x_test=held["x_test"][..., None], y_test=held["y_test"])
    with np.load(study.data / "fashion_mnist.npz") as held:
        np.savez(study.out / "aux.npz", x_train=held["x_train"][..., None], y_train=held["y_train"])


def _key(study: Study, plan: Plan) -> None:
    folder, key = study.folder(plan), study.key(plan)
    folder.mkdir(exist_ok=True)
    if not key.exists():
        options = [word for option in plan.options for word in ("--option", option)]
        zoo = ["--zoo", study.farm] if plan.zoo else []
        inputs = study.out / ("own.npz" if plan.scheme == "random-inclusion" else "test.npz")
        _run(
            *("key", plan.scheme, study.victim, "--inputs", inputs, "--scale", 255),
            *("--auxiliary", study.out / "aux.npz", "--nonce", _NONCE, *options, *zoo, "-o", key),
        )
    if plan.embedded and not study.marked(plan).exists():
        _run(
            *("embed", study.victim, key, "--data", study.out / "own.npz", "--scale", 255, "-o", study.marked(plan)),
            log=folder / "embed.txt",
        )


def _zoo(study: Study, victim: Path, folder: Path, *options: object) -> None:
    data = ("--data", study.out / "train.npz", "--test", study.out / "test.npz", "--scale", 255)
    _run("zoo", victim, *data, "--auxiliary", study.out / "aux.npz", *options, "-o", folder)


def _run(*words: object, log: Path | None = None) -> None:
    command = [str(Path(sys.executable).with_name("deepjudge")), *map(str, words)]
    print("$ deepjudge", shlex.join(command[1:]), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if log is not None and done.returncode == 0:
        log.write_text(done.stdout, "utf-8")
    if done.returncode not in (0, 1):
        print(f"ended with {done.returncode}: left out", flush=True)
