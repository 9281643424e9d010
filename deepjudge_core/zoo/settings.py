"""What a zoo is made of, and how: all that is said of it beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, MinLen

from deepjudge_core.models.training import Schedule
from deepjudge_core.settings import setting
from deepjudge_core.suites.inputs import TRAINING_KEYS, Offered, holds
from deepjudge_core.suites.settings import ArraySettings
from deepjudge_core.types import Layout

_TEST_KEYS = ("x_test", "y_test")


@dataclass(frozen=True, eq=False)
class ZooSettings:
    """What a zoo is made of, and how.

    Attributes:
        controls: Their number: half of them trained on the victim's rows, half on others.
        attacks: Names; None for every installed one.
        repeat: Models of each attack.
        controls_only: Whether nothing is stolen.
        epochs: Times that each input is seen in the training of a control; None for as many as the first control needs.
        rate: Greatest length of a step of Adam in it.
        options: Attack name to its options.
        seed: Of all that is drawn.
    """

    controls: Annotated[int, Ge(0)] = setting(
        "number of controls, half of them trained on the victim's rows, half on others",
        "--control-count",
        default=12,
        group="zoo",
        metavar="N",
        formerly=("--controls",),
    )
    attacks: Annotated[Sequence[str], MinLen(1)] | None = setting(
        "attacks to run; all for every installed attack",
        "--attacks",
        default=None,
        word="all",
        group="zoo",
        metavar="NAME,...",
        components="attacks",
    )
    repeat: Annotated[int, Ge(0)] = setting("models per attack", "--repeat", default=3, group="zoo", metavar="N")
    controls_only: bool = setting("make controls, but no stolen models", "--controls-only", default=False, group="zoo")
    epochs: Annotated[int, Ge(1)] | None = setting(
        "passes over the inputs in the training of a control; auto for as many as the first "
        "control needs to come near the victim's accuracy",
        "--epochs",
        default=None,
        word="auto",
        group="zoo",
        metavar="EPOCHS",
    )
    rate: Annotated[float, Gt(0)] = setting(
        "peak learning rate of Adam in the training of a control",
        "--rate",
        default=Schedule.rate,
        group="zoo",
        metavar="RATE",
    )
    options: Mapping[str, Mapping[str, Any]] = setting(
        "option of an attack, such as ft-al.epochs=3",
        "--option",
        factory=dict,
        group="zoo",
        metavar="ATTACK.NAME=VALUE",
    )
    seed: Annotated[int, Ge(0)] = setting(
        "seed of all random choices", "--seed", default=0, group="zoo", metavar="SEED"
    )

    @property
    def schedule(self) -> Schedule:
        """How controls are trained, if these epochs are enough."""
        return Schedule(epochs=self.epochs or Schedule.epochs, rate=self.rate)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What networks are trained and tested with.

    Attributes:
        data: Labelled training data.
        test: Labelled test data; None for what is beside the training data, or a part of it.
    """

    data: Path = setting(
        "labelled training data, in any form that --inputs of deepjudge suite takes",
        "--data",
        group="input",
        metavar="DATA",
        reads=True,
    )
    test: Path | None = setting(
        "labelled test data",
        "--test",
        default=None,
        group="input",
        metavar="DATA",
        usual=("x_test next to x_train, unless --x or --y is given; else every tenth row of the training data"),
        reads=True,
    )

    def has_tests(self, arrays: ArraySettings) -> bool:
        """Whether the training data come with test data, as archives of both do."""
        return arrays.x is None and arrays.y is None and holds(self.data, _TEST_KEYS)

    def training(self, arrays: ArraySettings, layout: Layout | None) -> Offered:
        """Read the training data.

        Raises:
            InputError, UsageError: As :func:`~deepjudge_core.suites.inputs.load_inputs`.
        """
        return arrays.offered(self.data, layout=layout, usual=TRAINING_KEYS)

    def tests(self, arrays: ArraySettings, layout: Layout | None) -> Offered | None:
        """Read the test data; None if none were said and none come with the training data.

        Raises:
            InputError, UsageError: As :func:`~deepjudge_core.suites.inputs.load_inputs`.
        """
        if self.test is not None:
            return arrays.offered(self.test, layout=layout)
        return arrays.offered(self.data, layout=layout, usual=(_TEST_KEYS,)) if self.has_tests(arrays) else None


@dataclass(frozen=True, kw_only=True)
class MaterialSettings(DataSettings):
    """What the models of a zoo are trained and tested with.

    Attributes:
        auxiliary: Inputs of another task; None for none.
        split: Share of the training data, from its start, that the victim was trained on.
        suite: The suite that adaptive attacks know; None for one that is made.
    """

    auxiliary: Path | None = setting(
        "inputs of another task that a thief has, with the victim's shape and range; their labels are used if present",
        "--auxiliary",
        default=None,
        group="input",
        metavar="DATA",
        reads=True,
    )
    split: Annotated[float, Gt(0), Le(1)] = setting(
        "share of the training data, from the start, that the victim was trained on; 1 if it was "
        "trained on all of it, which allows only controls of the same data",
        "--split",
        default=0.5,
        group="input",
        metavar="SHARE",
    )
    suite: Path | None = setting(
        "the victim's suite, as known to adaptive attacks",
        "--suite",
        default=None,
        group="input",
        metavar="SUITE",
        usual="made from the test data and kept in the zoo",
        reads=True,
    )
