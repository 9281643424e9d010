"""What a key is made and embedded with, besides its scheme, the victim and its inputs: all that is said beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from deepjudge_core.components.drawing import NONCE
from deepjudge_core.models.training import Schedule
from deepjudge_core.settings import Matches, setting


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """What a key is made with.

    Attributes:
        auxiliary: Inputs of another task; None for none.
        zoo: Models made from the victim by ``deepjudge zoo``; None for none.
        options: Of the scheme.
        nonce: In hex, what all that is drawn follows from; None for one that is chosen at random.
    """

    auxiliary: Path | None = setting(
        "inputs of another task, with the victim's shape and range; their labels are used if present",
        "--auxiliary",
        default=None,
        group="input",
        metavar="DATA",
        reads=True,
    )
    zoo: Path | None = setting(
        "the victim's zoo: its controls are references, and its stolen models are surrogates",
        "--zoo",
        default=None,
        group="input",
        metavar="ZOO",
        reads=True,
    )
    options: Mapping[str, Any] = setting(
        "option of the scheme, such as trials=200; 'deepjudge plugins --options' lists them",
        "--option",
        factory=dict,
        group="key",
        metavar="NAME=VALUE",
    )
    nonce: Annotated[str, Matches(f"[0-9a-fA-F]{{{2 * NONCE}}}", f"{2 * NONCE} hex digits")] | None = setting(
        "secret that everything random in the key follows from; the same nonce and arguments give the same key",
        "--nonce",
        default=None,
        usual="chosen at random",
        group="key",
        metavar="HEX",
    )


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """How keys are embedded.

    Attributes:
        epochs: Times that each input is seen.
        rate: Greatest length of a step of Adam.
        cost: Share of the test data by which the accuracy may fall.
        seed: Of all that is drawn.
    """

    epochs: Annotated[int, Ge(1)] = setting(
        "passes over the training data; it ends early once all trials of all keys match",
        "--epochs",
        default=5,
        group="key",
        metavar="EPOCHS",
    )
    rate: Annotated[float, Gt(0)] = setting(
        "peak learning rate of Adam", "--rate", default=1e-3, group="key", metavar="RATE"
    )
    cost: Annotated[float, Ge(0), Le(1)] = setting(
        "share of the test data by which the accuracy may fall; 0.01 is one point",
        "--cost",
        default=0.01,
        group="key",
        metavar="SHARE",
    )
    seed: Annotated[int, Ge(0)] = setting(
        "seed of all random choices", "--seed", default=0, group="key", metavar="SEED"
    )

    @property
    def schedule(self) -> Schedule:
        """How long, and in which steps."""
        return Schedule(epochs=self.epochs, rate=self.rate)
