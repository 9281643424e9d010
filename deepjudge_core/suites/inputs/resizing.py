"""How pictures of one shape become those of another: the rule that is stated, and what it is for some pictures."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from deepjudge_core.errors import InputError, UsageError
from deepjudge_core.models.geometry import Canvas, Fitting, Geometry, Size, bringing, recolouring
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.naming import option

RESIZING = r"(crop|stretch)(?::(\d{1,5})(?:x(\d{1,5}))?)?"
"""How it is typed."""


@dataclass(frozen=True)
class Resizing:
    """How pictures are brought to the size that a model takes.

    Attributes:
        how: By which rule.
        size: To which size, where the model takes any, or does not say; None for the one that most pictures have.
    """

    how: Fitting = "crop"
    size: Size | None = None

    @classmethod
    def parse(cls, text: str) -> "Resizing":
        """Read ``crop``, ``stretch``, ``crop:224`` or ``crop:HEIGHTxWIDTH``.

        Raises:
            UsageError: When it is none.
        """
        parts = re.fullmatch(RESIZING, text)
        if not parts or "0" in parts.groups():
            raise UsageError(
                f"expected crop or stretch, with or without a size as crop:224 or crop:240x320, found {text!r}",
                code="wrong-value",
            )
        height, width = parts[2], parts[3] or parts[2]
        return cls(cast(Fitting, parts[1]), (int(height), int(width)) if height else None)


def geometry_for(resizing: Resizing, size: Size, channels: int, spec: InputSpec, source: str) -> Geometry:
    """What brings pictures of a size and a number of channels to what a model takes.

    Raises:
        InputError: When a size was said, and the model takes another.
    """
    target, wanted = target_of(resizing, size, channels, spec, source)
    whole = bringing(size, target, resizing.how)
    return Geometry(whole.resize, whole.crop, recolouring(channels, wanted))


def target_of(resizing: Resizing, usual: Size, channels: int, spec: InputSpec, source: str) -> tuple[Size, int]:
    """The size and the number of channels that pictures should have.

    Args:
        resizing: The rule.
        usual: Their size, where neither the rule nor the model says it.
        channels: Theirs, where the model does not say.
        spec: What the model takes.
        source: What messages call the pictures.

    Raises:
        InputError: When a size was said, and the model takes another.
    """
    said, canvas = resizing.size or usual, Canvas.of(spec)
    if canvas is None:  # rows of pixels, say: the shape is looked at when they are arranged
        return said, channels
    target = canvas.height or said[0], canvas.width or said[1]
    if resizing.size is not None and target != resizing.size:
        raise InputError(
            f"{source}: expected the size that the model takes, {_text(target)}, found "
            f"{option('resize', f'{resizing.how}:{_text(resizing.size)}')}; leave the size out"
        )
    return target, canvas.channels


def in_words(geometry: Geometry, resizing: Resizing, sizes: Iterable[Size]) -> str:
    """A note of what was done to pictures."""
    distinct = sorted(set(sizes))
    found = _text(distinct[0]) if len(distinct) == 1 else f"{len(distinct)} sizes"
    said = []
    if geometry.size:
        rule = {"crop": "the shorter side resized, the centre cut out", "stretch": "each side resized by itself"}
        said.append(f"from {found} to {_text(geometry.size)} pixels ({resizing.how}, bilinear: {rule[resizing.how]})")
    if geometry.color:
        said.append("from colour to grey (BT.601)" if geometry.color == "grey" else "from grey to colour")
    return f"pictures were brought {', and '.join(said)}"


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
