"""What the owner chose of how a suite is made, as it stands in the suite."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from deepjudge_core.files.documents import Count, Document, Json, Positive

Order = Literal["high", "low", "balanced"]
"""Which inputs become seeds."""


class Choices(Document, frozen=True, kw_only=True):
    """How a suite was asked for: with the same victim and inputs it can be made again."""

    n: Annotated[Positive, Meta(description="Number of seeds.")]
    order: Annotated[Order, Meta(description="Which inputs become seeds.")]
    layers: Annotated[tuple[str, ...] | None, Meta(description="Layers of the victim; null: the default.")]
    generators: Annotated[tuple[str, ...] | None, Meta(description="Generators; null: the usual ones.")]
    options: Annotated[Mapping[str, Json], Meta(description="Generator to the options that were given.")]
    seed: Annotated[Count, Meta(description="Seed of all random choices.")]
    pictures: Annotated[str | None, Meta(description="As what all cases can be sent unchanged; null: any numbers.")]
    force: Annotated[bool, Meta(description="Whether a suite is made that can hardly support a verdict.")]
