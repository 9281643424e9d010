"""How a model is opened and asked, where its file does not tell: all that is said of it beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from annotated_types import Ge, MinLen

from deepjudge_core.models.code import FORM
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.settings import Distinct, Matches, OrNumber, setting
from deepjudge_core.types import Layout

_TABLES = ("controls[]", "suspects[]")
DAY = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_WITH_VICTIM = ("victim", *_TABLES)


def victim_input_setting() -> Any:
    """The field of the victim's preprocessing; of ``AUDIT.toml`` the key is that of any model's."""
    return setting(
        "how the victim expects inputs in 0..1, in the form of --suspect-input",
        "--victim-input",
        default=None,
        group="model",
        metavar="HOW",
    )


def layout_setting() -> Any:
    """The field of a layout, of what is asked and of inputs alike."""
    return setting(
        "axis of the inputs that holds the channels, if neither shape nor file tells",
        "--input-layout",
        default=None,
        group="model",
        key="input_layout",
        tables=_WITH_VICTIM,
        sample="channels_first",
    )


def base_setting() -> Any:
    """The field of the model that a LoRA changes."""
    return setting(
        "model that the LoRA folders among the models change; by default the folder next to each that has its name",
        "--base",
        default=None,
        group="weights",
        metavar="MODEL",
        key="base",
        tables=_WITH_VICTIM,
        sample="base.safetensors",
        reads=True,
        commands=("compare", "suite", "observe", "calibrate", "judge", "audit", "fleet"),
    )


@dataclass(frozen=True)
class QuerySettings:
    """How a model is asked, where its file does not tell.

    Attributes:
        layers: The suite's layers to the model's taps, where places, widths and outputs do not find them.
        preprocessing: What the model expects to be done to inputs in 0..1; by default what the victim does.
        infer: Whether a standard preprocessing is looked for where the model errs more than the victim.
        classes: The model's own output for each of the victim's classes, in their order; its probabilities are scaled
            to sum to 1 over them. Without it, as many classes as the victim's are taken for the same, in the order
            that the answers to the seeds show.
        layout: Where the channels of the model's inputs are, where the model does not say.
        weights: Whether only the model's weights are read, so that it is never run.
        published: Since when it has been public, as somebody says; only the report tells.
        stored: Of a suspect, whether it may be a stored observation. What such a file says of the model, and what the
            model answered, are claims of whoever made it; and any name may be given to it.
    """

    layers: Mapping[str, str] = setting(
        "layer of the model (TAP) that corresponds to a layer of the suite, if position, width and CKA do not tell",
        "--layer-map",
        factory=dict,
        group="model",
        metavar="LAYER=TAP",
        key="layers",
        tables=_TABLES,
        sample={"relu_1": "activation_1"},
    )
    preprocessing: Preprocessing | None = setting(
        "how the model expects inputs in 0..1: a preset, such as imagenet, or scale=S,mean=M,std=D, order=bgr, "
        "invert=true, resize=HxW",
        "--suspect-input",
        default=None,
        group="model",
        metavar="HOW",
        key="input",
        tables=_WITH_VICTIM,
        sample={
            "scale": 1.0,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "order": "rgb",
            "invert": False,
            "resize": [256, 256],
            "crop": [224, 224],
            "color": "rgb",
        },
    )
    infer: bool = setting(
        "do not try standard preprocessings on a model that makes more errors than the victim",
        "--no-infer-input",
        default=True,
        group="model",
        key="infer_input",
        tables=_TABLES,
    )
    classes: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1), Distinct()] | None = setting(
        "the model's output, counted from 0, for each of the victim's classes",
        "--classes",
        default=None,
        group="model",
        metavar="I,J,...",
        key="classes",
        tables=_TABLES,
        sample=[2, 0, 1],
    )
    layout: Layout | None = layout_setting()
    weights: bool = setting(
        "read only the model's weights, and never run it; the suite has to compare weights",
        "--weights",
        default=False,
        group="weights",
        commands=("observe", "calibrate", "judge", "fleet"),
    )
    stored: bool = setting(
        "accept stored observations as suspects; the report marks them, because their makers claim what they hold",
        "--stored",
        default=False,
        group="suspect",
        key="stored",
        tables=("suspects[]",),
        commands=("judge", "audit"),
    )

    published: Annotated[str, Matches(DAY, "a day as 2026-01-31")] | None = setting(
        "day since which you say the suspects have been public; the report calls it your claim",
        "--published",
        default=None,
        group="report",
        metavar="YYYY-MM-DD",
        key="published",
        tables=("suspects[]",),
        sample="2026-01-31",
        commands=("judge", "audit"),
    )

    def of_controls(self) -> "QuerySettings":
        """How the controls beside suspects are asked: what is said of the suspects themselves is not true of them."""
        return replace(self, layers={}, classes=None, preprocessing=None, stored=False, published=None)


@dataclass(frozen=True)
class OpeningSettings:
    """How a model's file is opened.

    Attributes:
        output: Which output holds the scores; None for the one that answers the task.
        fix: Numbers in the place of all inputs but one, by the names of these inputs.
        arch: ``file.py:function`` or ``module:function`` that makes the network of files of weights alone; None for
            files that hold it.
        base: The model that a LoRA changes, of which weights alone are read; None for the folder next to the LoRA that
            has its name.
        budget: How many inputs a model behind an API may be asked; None for as many as its description says.
    """

    output: Annotated[str, OrNumber()] | None = setting(
        "which of several outputs holds the scores, by name or by number from 1; by default the "
        "output that solves the task",
        "--output",
        default=None,
        group="model",
        metavar="NAME|NUMBER",
        key="output",
        tables=_WITH_VICTIM,
        sample="logits",
        formerly=("--output-name", *(f"{table}.output_name" for table in _WITH_VICTIM)),
    )
    fix: Mapping[str, float] = setting(
        "constant value for an input of the model, if it has several",
        "--fix",
        factory=dict,
        group="model",
        metavar="INPUT=NUMBER",
        key="fix",
        tables=_WITH_VICTIM,
        sample={"sr": 16000.0},
    )
    arch: Annotated[str, Matches(r"[^:]+:[\w.]+", FORM)] | None = setting(
        "function or class without arguments that builds the module for PyTorch weights",
        "--arch",
        default=None,
        group="model",
        metavar="FILE.py:FUNCTION",
        key="arch",
        tables=_WITH_VICTIM,
        sample="networks.py:make",
    )
    base: str | None = base_setting()
    budget: Annotated[int, Ge(1)] | None = setting(
        "greatest number of inputs that a suspect behind an API may be asked, including those of an interrupted run",
        "--budget",
        default=None,
        group="suspect",
        metavar="N",
        key="budget",
        tables=("suspects[]",),
        sample=2000,
        commands=("observe", "audit"),
    )

    @property
    def options(self) -> dict[str, Any]:
        """The options of the adapter that opens it."""
        return {name: value for name, value in vars(self).items() if value}
