"""How inputs are read, and how a suite is made of them: all that is said of it beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, MinLen

from deepjudge_core.errors import UsageError
from deepjudge_core.models.pictures import PICTURES
from deepjudge_core.settings import Increasing, Matches, OneOrEach, setting
from deepjudge_core.suites.choices import Order
from deepjudge_core.suites.inputs import (
    RESIZING,
    TRAINING_KEYS,
    USUAL_KEYS,
    Inputs,
    LabelSource,
    Offered,
    holds,
    is_archive,
    load_training_inputs,
    open_inputs,
)
from deepjudge_core.suites.inputs.origin import origin_of
from deepjudge_core.types import Array, Layout

DEFAULT_GENERATORS = ("pgd", "neuron-corners")
ANSWERING_GENERATORS = ("square", "substitutions")
"""What makes adversarial cases where nobody says it and the victim gives no gradients: of numbers, of tokens."""


@dataclass(frozen=True, kw_only=True)
class ArraySettings:
    """How labelled inputs are read from a file.

    Attributes:
        x: Key of the inputs; None for the usual ones.
        y: Key of the labels; None for the usual ones.
        scale: What the inputs are divided by; None for 255 for pictures in files, 1 for arrays.
        bounds: Their range after that; None for what they imply.
        resize: How pictures are brought to the size that the victim takes; None for "crop" for those in files, and for
            arrays as they are.
    """

    x: str | None = setting(
        "key of the inputs in the file",
        "--x",
        default=None,
        group="data",
        metavar="KEY",
        key="x",
        tables=("inputs",),
        sample="x_test",
        usual="detected",
    )
    y: str | None = setting(
        "key of the labels in the file",
        "--y",
        default=None,
        group="data",
        metavar="KEY",
        key="y",
        tables=("inputs",),
        sample="y_test",
        usual="detected",
    )
    scale: Annotated[float, Gt(0)] | None = setting(
        "divisor for the inputs, such as 255 for images in 0..255",
        "--scale",
        default=None,
        usual="255 for pictures, 1 for arrays",
        group="data",
        metavar="SCALE",
        key="scale",
        tables=("inputs",),
        sample=255.0,
    )
    bounds: Annotated[tuple[OneOrEach, OneOrEach], Increasing()] | None = setting(
        "range of the inputs after scaling, or LOW:LOW,HIGH:HIGH for each feature or channel",
        "--bounds",
        default=None,
        group="data",
        metavar="LOW,HIGH",
        key="bounds",
        tables=("inputs",),
        sample=[0.0, 1.0],
        usual="inferred from the inputs",
    )
    resize: Annotated[str, Matches(RESIZING, 'crop or stretch, with or without a size as "crop:224"')] | None = setting(
        "how pictures get the victim's size: crop or stretch; crop:HxW if it takes any size",
        "--resize",
        default=None,
        group="data",
        metavar="RULE",
        key="resize",
        tables=("inputs",),
        sample="crop",
        usual="crop; arrays stay unchanged",
    )

    def offered(
        self,
        path: Path,
        *,
        training: Array | None = None,
        layout: Layout | None = None,
        usual: Sequence[tuple[str, str]] = USUAL_KEYS,
        labels: LabelSource = "file",
    ) -> Offered:
        """Read a file or folder so; see :func:`~deepjudge_core.suites.inputs.loading.load_inputs`."""
        return open_inputs(
            path,
            x=self.x,
            y=self.y,
            scale=self.scale,
            bounds=self.bounds,
            training=training,
            layout=layout,
            usual=usual,
            labels=labels,
            resize=self.resize,
        )

    def auxiliary(self, path: Path, layout: Layout | None = None) -> Offered:
        """Read inputs of another task, with their labels if there are any, else with -1 for each."""
        if not is_archive(path):
            return replace(self, x=None, y=None).offered(path, layout=layout)
        usual = next((pair for pair in (*TRAINING_KEYS, *USUAL_KEYS) if holds(path, pair)), None)
        if usual:
            return open_inputs(path, scale=self.scale, usual=(usual,))
        x = load_training_inputs(str(path), scale=self.scale)
        return Inputs(x, np.full(len(x), -1))


@dataclass(frozen=True, kw_only=True)
class InputSettings(ArraySettings):
    """Where the inputs are that seeds are selected from, and how they are read.

    Attributes:
        path: A folder or file of inputs.
        labels: What says their classes: the file, or the victim.
        training: ``FILE.npz:KEY`` of inputs of the training set; None for those of the same file.
        layout: Where the channels of the inputs are, where their shape does not tell.
    """

    path: Path | None = setting(
        "labelled inputs of the victim's task that it was not trained on: a folder of pictures per class, a table, "
        "or arrays",
        "--inputs",
        default=None,
        unless=("--weights", "suite.weights"),
        group="input",
        metavar="DATA",
        key="path",
        tables=("inputs",),
        sample="inputs.npz",
        reads=True,
    )
    labels: LabelSource = setting(
        "take labels from the file, or the victim's own answers as labels",
        "--labels",
        default="file",
        group="data",
        key="labels",
        tables=("inputs",),
    )
    training: str | None = setting(
        "inputs that the victim was trained on; neuron ranges are measured on them",
        "--training-inputs",
        default=None,
        commands=("suite", "audit"),
        group="input",
        metavar="FILE.npz:KEY",
        key="training",
        tables=("inputs",),
        sample="inputs.npz:x_train",
        usual="x_train next to x_test, or else the seeds",
        reads=True,
    )
    layout: Layout | None = setting(
        "axis of the inputs that holds the channels, if shapes do not tell",
        default=None,
        key="layout",
        tables=("inputs",),
        sample="channels_last",
    )

    def load(self) -> Offered:
        """Read them, and look at where they are from.

        Raises:
            InputError, UsageError: As :func:`~deepjudge_core.suites.inputs.load_inputs`.
        """
        if self.path is None:
            raise UsageError("expected inputs, found none", code="missing-value")
        training = load_training_inputs(self.training, scale=self.scale) if self.training else None
        offered = self.offered(self.path, training=training, layout=self.layout, labels=self.labels)
        given = {
            "x": self.x,
            "y": self.y,
            "scale": self.scale,
            "resize": self.resize,
            "training-inputs": self.training and Path(self.training),
            "layout": self.layout,
        }
        options = {name: value for name, value in given.items() if value is not None}
        return offered.located(origin_of(self.path, options, offered.listed))


@dataclass(frozen=True, eq=False)
class SuiteSettings:
    """How a suite is made.

    Attributes:
        n: Number of seeds.
        order: Which seeds.
        layers: Taps of the victim to compare; None for the default.
        generators: Names; None for the usual ones.
        options: Generator name to its options.
        seed: Of all randomness.
        force: Whether a suite is made on which hardly a verdict can rest.
        weights: Whether the victim's weights have to be compared; a suite without inputs then compares nothing else.
        sketch: Whether they are compared if they can be read, though nobody demands it.
        pictures: As what all cases are sent unchanged; None for cases of any numbers.
        keys: Files of keys that the victim carries.
        ancestor: A public model, or first weights, that the victim was made from, of which weights alone are read.
        ancestor_base: The model that the ancestor changes, if that is a LoRA; None for the folder next to it that has
            the base's name.
    """

    n: Annotated[int, Ge(1)] = setting(
        "number of inputs (seeds) that test cases are made from",
        "-n",
        default=1000,
        group="suite",
        metavar="N",
        key="seeds",
        tables=("suite",),
    )
    order: Order = setting(
        "which inputs become seeds: those with the highest or lowest confidence, or the highest of each class in turn",
        "--order",
        default="high",
        group="suite",
        key="order",
        tables=("suite",),
    )
    layers: Annotated[Sequence[str], MinLen(1)] | None = setting(
        "layers of the victim to compare; auto takes the hidden layer a third of the way "
        "through; 'deepjudge show SUITE' lists all",
        "--layers",
        default=None,
        word="auto",
        group="suite",
        metavar="NAME,...",
        key="layers",
        tables=("suite",),
    )
    generators: Annotated[Sequence[str], MinLen(1)] | None = setting(
        "generators that make the test cases",
        "-g",
        "--generator",
        default=None,
        usual=f"{','.join(DEFAULT_GENERATORS)}; {' or '.join(ANSWERING_GENERATORS)} if the victim gives no gradients",
        group="suite",
        metavar="NAME,...",
        key="generators",
        components="generators",
    )
    options: Mapping[str, Mapping[str, Any]] = setting(
        "option of a generator, such as pgd.eps=0.1",
        "--option",
        factory=dict,
        group="suite",
        metavar="GENERATOR.NAME=VALUE",
    )
    seed: Annotated[int, Ge(0)] = setting(
        "seed of all random choices",
        "--seed",
        default=0,
        group="suite",
        metavar="SEED",
        key="seed",
        tables=("suite",),
    )
    force: bool = setting(
        "make the suite even if it can hardly support a verdict: if the victim misclassifies "
        "most inputs, if all seeds are of one class, or if a generator makes too few cases; the "
        "suite's notes say so",
        "--force",
        default=False,
        group="suite",
        key="force",
        tables=("suite",),
    )
    pictures: Annotated[str, Matches(PICTURES, "png, jpeg or jpeg:QUALITY")] | None = setting(
        "make only cases that survive as pictures of 8 bits, for suspects behind an API that takes pictures",
        "--pictures",
        default=None,
        group="data",
        metavar="png|jpeg[:QUALITY]",
        key="pictures",
        tables=("suite",),
        sample="png",
    )
    weights: bool = setting(
        "compare weights, which are read and never run; without inputs, the suite compares nothing else",
        "--weights",
        default=False,
        group="weights",
        key="weights",
        tables=("suite",),
        commands=("suite", "audit"),
    )
    sketch: bool = setting(
        "keep the suite without a sketch of the victim's weights, which it has if they can be read",
        "--no-weights",
        default=True,
        group="weights",
        key="sketch",
        tables=("suite",),
    )
    keys: Sequence[Path] = setting(
        "key of a watermark or fingerprint that your model carries, made by 'deepjudge key'",
        "--key",
        default=(),
        group="key",
        metavar="KEY",
        key="keys",
        tables=("suite",),
        sample=["adi.key.safetensors"],
        reads=True,
        commands=("suite",),
        filed=("audit",),  # where --key signs
    )
    ancestor: Path | None = setting(
        "model that yours was made from, such as a public base model or the first weights: what every model made from "
        "it has in common then accuses nobody",
        "--ancestor",
        default=None,
        group="weights",
        metavar="MODEL",
        key="ancestor",
        tables=("suite",),
        sample="base.safetensors",
        reads=True,
    )
    ancestor_base: Path | None = setting(
        "model that the ancestor changes, if that is a LoRA",
        default=None,
        group="weights",
        key="ancestor_base",
        tables=("suite",),
        sample="base.safetensors",
        usual="the folder next to the ancestor that has its name",
        reads=True,
    )
