"""What a model takes: shape, type and layout of its one input."""

from dataclasses import dataclass, replace

from deepjudge_core.types import Layout


@dataclass(frozen=True)
class InputSpec:
    """The one input of a model.

    Attributes:
        shape: Axes without the batch axis; None where the model takes any length.
        dtype: numpy name of the element type that the model takes.
        layout: Where the channels are, where the model says so; used only when the shape alone is ambiguous.
    """

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    layout: Layout | None = None

    @property
    def counts(self) -> bool:
        """Whether inputs are whole numbers that stand for something else, such as words; bytes are those of images."""
        kind = self.dtype.lstrip("u")
        return kind.startswith("int") and int(kind.removeprefix("int") or 64) >= 32

    @property
    def spatial(self) -> tuple[int, int] | None:
        """Axes of height and width, counted from that of the rows; None for inputs that are no images."""
        if len(self.shape) != 3 or self.layout is None:
            return None
        return (2, 3) if self.layout == "channels_first" else (1, 2)

    def with_layout(self, layout: Layout | None) -> "InputSpec":
        """The same, with this layout where none is known."""
        return replace(self, layout=self.layout or layout)

    def __str__(self) -> str:
        return "x".join("?" if axis is None else str(axis) for axis in self.shape)
