"""What a key is made with, besides its scheme, the victim and its inputs: all that is said of it beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from deepjudge_core.components.drawing import NONCE
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
