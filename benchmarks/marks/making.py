"""Makes what the study measures, by the commands that a user types."""

import contextlib
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from independents import make_independents
from lenet import convert
from plan import EXTRACTED, EXTRACTING, FARM, HARDENING, QUICK, SHORTER, Plan

from deepjudge_core.cli.main import main
from deepjudge_core.files import digests
from deepjudge_core.zoo.manifest import ZooVictim

_ROWS = 40_000  # of MNIST's training set: the first half is the victim's
_STOLEN_WITH = 8_000  # of the other half, which a thief has; and as many of the victim's
_NONCE = "5e" * 32
_TESTS = 2_000  # on which the accuracy of an independent is measured
_ACCURACY = 0.9854  # of the victim


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
        """The network that the authors of the method published, as a program of PyTorch."""
        return self.out / "victim.pt2"

    @property
    def controls(self) -> Path:
        """The zoo of the independents."""
        return self.out / "controls"

    @property
    def extracted(self) -> Path:
        """The zoo of models that were trained on the unmarked victim's answers."""
        return self.out / "extracted"

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
        return self.folder(plan) / "marked.pt2" if plan.embedded else self.victim

    def zoo(self, plan: Plan) -> Path:
        """The models that were stolen from that."""
        return self.folder(plan) / "zoo" if plan.embedded else self.out / "zoo"


def make_all(study: Study, plans: Sequence[Plan]) -> None:
    """Make what is not there: what most depends on first, and then what takes little time.

    Wherever it is interrupted, all keys have been stolen in the same ways but for the last one.
    """
    study.out.mkdir(parents=True, exist_ok=True)
    _arrays(study)
    if not study.victim.exists():
        convert(study.data / "victims" / "mnist_lenet5.h5", study.victim)
    for plan in plans:
        if not plan.zoo:
            make_key(study, plan)
            steal(study, plan, QUICK)
    independents(study)
    if any(plan.zoo for plan in plans):
        make_farm(study)
    for plan in plans:
        if plan.zoo:
            make_key(study, plan)
            steal(study, plan, QUICK)
    for attack in EXTRACTING:
        for plan in plans:
            steal(study, plan, (attack,))
    if any(plan.name == "conferrable" for plan in plans):
        extract(study)
    for attack in HARDENING:
        for plan in plans:
            steal(study, plan, (attack,))


def make_farm(study: Study) -> None:
    """Make the models that keys are made from, with a seed of their own."""
    options = ("--control-count", 16, "--epochs", 1, "--seed", 7, "--repeat", 1)
    _zoo(study, "train.npz", study.victim, study.farm, *options, FARM)


def make_key(study: Study, plan: Plan) -> None:
    """Make a key, and the model that carries it."""
    folder, key = study.folder(plan), study.key(plan)
    folder.mkdir(exist_ok=True)
    if not key.exists():
        options = [word for option in plan.options for word in ("--option", option)]
        zoo = ["--zoo", study.farm] if plan.zoo else []
        _run(
            *("key", plan.scheme, study.victim, "--inputs", study.out / "test.npz", "--scale", 255, "--no-sandbox"),
            *("--auxiliary", study.out / "aux.npz", "--nonce", _NONCE, *options, *zoo, "-o", key),
        )
    if plan.embedded and key.exists() and not study.marked(plan).exists():
        data = ("--data", study.out / "own.npz", "--test", study.out / "test.npz", "--scale", 255, "--no-sandbox")
        _run("embed", study.victim, key, *data, "-o", study.marked(plan), log=folder / "embed.txt")


def steal(study: Study, plan: Plan, attacks: Sequence[str]) -> None:
    """Steal the model that carries a key."""
    if study.marked(plan).exists():
        options = ("--control-count", 0, "--repeat", 1)
        _zoo(study, "thief.npz", study.marked(plan), study.zoo(plan), *options, attacks)


def extract(study: Study) -> None:
    """Extract the unmarked victim, with another seed than the farm's."""
    options = ("--control-count", 0, "--seed", 11, "--repeat", 1)
    _zoo(study, "thief.npz", study.victim, study.extracted, *options, EXTRACTED)


def independents(study: Study) -> None:
    """Make the models that know no key."""
    with np.load(study.out / "train.npz") as train, np.load(study.out / "test.npz") as test:
        data = _channels_first(train["x_train"]), train["y_train"].astype(np.int64)
        tests = _channels_first(test["x_test"][:_TESTS]), test["y_test"][:_TESTS].astype(np.int64)
    victim = ZooVictim(study.victim.name, "torch", digests.of_file(study.victim).digest, 10, _ACCURACY)
    make_independents(study.controls, study.independents, victim, data, tests)


def _channels_first(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(np.moveaxis(images, -1, 1), np.float32) / np.float32(255)


def _arrays(study: Study) -> None:
    if (study.out / "aux.npz").exists():
        return
    with np.load(study.data / "mnist.npz") as held:
        x, y = held["x_train"][:_ROWS, ..., None], held["y_train"][:_ROWS]
        np.savez(study.out / "train.npz", x_train=x, y_train=y)
        some = slice(_ROWS // 2 - _STOLEN_WITH, _ROWS // 2 + _STOLEN_WITH)
        np.savez(study.out / "thief.npz", x_train=x[some], y_train=y[some])
        np.savez(study.out / "own.npz", x_train=x[: _ROWS // 2], y_train=y[: _ROWS // 2])
        np.savez(study.out / "test.npz", x_test=held["x_test"][..., None], y_test=held["y_test"])
    with np.load(study.data / "fashion_mnist.npz") as held:
        np.savez(study.out / "aux.npz", x_train=held["x_train"][..., None], y_train=held["y_train"])


def _zoo(study: Study, data: str, victim: Path, folder: Path, *words: Any) -> None:
    *options, attacks = words
    given = ("--data", study.out / data, "--test", study.out / "test.npz", "--scale", 255)
    shorter = [word for option in SHORTER if option.split(".")[0] in attacks for word in ("--option", option)]
    made = ("--attacks", ",".join(attacks), *shorter, *options)
    _run("zoo", victim, *given, "--auxiliary", study.out / "aux.npz", *made, "-o", folder)


def _run(*words: object, log: Path | None = None) -> None:
    # In this process: to load a framework anew takes as long as many a command.
    command = list(map(str, words))
    print("$ deepjudge", shlex.join(command), flush=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = main(command)
    print(said.getvalue(), end="", flush=True)
    if log is not None and status == 0:
        log.write_text(said.getvalue(), "utf-8")
    if status not in (0, 1):
        print(f"ended with {status}: left out", flush=True)
