"""A challenge: a value that somebody else gives when all else is fixed, and that half of a suite's seeds follow from.

The ranking is made by SHA-256 alone, so that anybody can check it, in any language and any year.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import scipy  # which loads its parts when they are first used
from msgspec import Meta

from deepjudge_core.components.values import Seeds
from deepjudge_core.errors import UsageError
from deepjudge_core.files.documents import Document, Positive, Sha256
from deepjudge_core.files.reading import LARGEST_JSON, open_regular
from deepjudge_core.types import Array

_DRAW, _ATTACKS = b"deepjudge/challenge/1/seeds\0", b"deepjudge/challenge/1/attacks\0"
_HEX = re.compile(r"[0-9a-f]{32,1024}")
MOST_OFFERED = 2**22
"""Inputs that a challenge ranks: a hash for each, which whoever verifies computes, too."""
_SURELY = 1e-9  # a draw that is less likely was not made as it is said


@dataclass(frozen=True)
class Given:
    """A challenge before a suite is made.

    Attributes:
        value: What was given, in hex.
        commitment: SHA-256 of the commitment that was there before.
    """

    value: str
    commitment: str

    def of(self, offered: int, n: int) -> "Challenge":
        """The challenge of so many inputs, when n seeds are asked for.

        Raises:
            UsageError: When one seed is asked for, which is no half.
        """
        if n < 2:
            raise UsageError(f"a challenge draws half of the seeds, so expected at least 2, found {n}", code="conflict")
        if offered > MOST_OFFERED:
            raise UsageError(
                f"a challenge draws from at most {MOST_OFFERED:,} inputs, found {offered:,}; offer fewer",
                code="conflict",
            )
        return Challenge(self.value, self.commitment, offered, n - n // 2)


class Challenge(Document, frozen=True):
    """A challenge, as it stands in a suite."""

    value: Annotated[
        str,
        Meta(pattern="^[0-9a-f]{32,1024}$", max_length=1024, description="What was given, in hex: 16 bytes or more."),
    ]
    commitment: Annotated[Sha256, Meta(description="SHA-256 of the commitment that was there before.")]
    offered: Annotated[int, Meta(ge=1, le=MOST_OFFERED, description="Inputs that seeds were drawn from.")]
    chosen: Annotated[
        Positive, Meta(description="Seeds that were selected by their order; those behind them were drawn.")
    ]

    @property
    def seed(self) -> int:
        """Of all randomness of the attacks on the drawn seeds."""
        return int.from_bytes(self._digest(_ATTACKS)[:16], "big")

    def ranked(self) -> Array:
        """``(offered,)`` int64 places of the inputs in the order in which they are drawn.

        The rank of an input is the SHA-256 of the challenge, the commitment and its place.
        """
        start, words = self._digest(_DRAW), np.empty((self.offered, 4), dtype=">u8")
        for place in range(self.offered):
            words[place] = np.frombuffer(hashlib.sha256(start + place.to_bytes(8, "big")).digest(), ">u8")
        ranked: Array = np.lexsort(words.T[::-1]).astype(np.int64)
        return ranked

    def _digest(self, purpose: bytes) -> bytes:
        return hashlib.sha256(purpose + bytes.fromhex(self.commitment) + bytes.fromhex(self.value)).digest()


def read_value(text: str) -> str:
    """The value of a challenge, in hex.

    Args:
        text: The value in hex, or the path of a file, such as what a beacon published, whose SHA-256 is the value.

    Raises:
        UsageError: When it is neither.
    """
    if _HEX.fullmatch(text.lower()) and len(text) % 2 == 0:
        return text.lower()
    path = Path(text)
    if not path.is_file():
        raise UsageError(
            f"{text}: expected a challenge of at least 16 bytes in hex, or a file, found neither", code="wrong-value"
        )
    with open_regular(path, "a challenge", LARGEST_JSON, UsageError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def split(seeds: Seeds, chosen: int) -> tuple[Seeds, Seeds]:
    """The seeds that were selected by their order, and those that were drawn."""
    one, other = (
        replace(seeds, inputs=seeds.inputs[rows], labels=seeds.labels[rows], indices=seeds.indices[rows])
        for rows in (slice(chosen), slice(chosen, None))
    )
    return one, replace(other, notes=(), mistakes=None)


def mistakes_of_draw(challenge: Challenge, seeds: Array, accuracy: float | None) -> Iterator[str]:
    """What shows that seeds were not drawn as the challenge says: a line for each; no model is needed.

    Args:
        challenge: The challenge.
        seeds: ``(n,)`` places of all seeds in the inputs, the chosen ones first.
        accuracy: Share of the inputs that could be drawn; None where the suite does not tell.
    """
    chosen, drawn = seeds[: challenge.chosen], seeds[challenge.chosen :]
    if len(seeds) and not (seeds.min() >= 0 and seeds.max() < challenge.offered):
        yield f"a seed is not among the {challenge.offered} inputs that were offered"
        return
    places = np.empty(challenge.offered, dtype=np.int64)
    places[challenge.ranked()] = np.arange(challenge.offered)
    ranks = places[drawn]
    if not len(drawn) or (np.diff(ranks) <= 0).any():
        yield f"its {len(drawn)} drawn seeds are not in the order of the challenge"
        return
    # Passed over was what the victim misclassifies, as its owner says: as many as its accuracy lets expect.
    before = int(ranks[-1]) + 1 - int((places[chosen] <= ranks[-1]).sum())
    passed, wrong = before - len(drawn), 0 if accuracy is None else round((1 - accuracy) * challenge.offered)
    if accuracy is None:
        return
    left = challenge.offered - len(chosen)
    chance = float(scipy.stats.hypergeom.sf(passed - 1, left, min(wrong, left), before)) if passed else 1.0
    if chance < _SURELY:
        yield (
            f"the draw skipped {passed} of {before} inputs, although the victim misclassifies {1 - accuracy:.1%} of all"
        )
