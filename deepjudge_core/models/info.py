"""What a model was: all that is kept of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from msgspec import UNSET, UnsetType

from deepjudge_core.files.digests import ITSELF
from deepjudge_core.files.documents import Part, Positive, Sha256, parse, plain
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.models.model import Access, Model
from deepjudge_core.text import clean
from deepjudge_core.types import Layout

AccessName = Literal["labels", "probabilities", "layers", "gradients", "weights"]
_LONGEST_DEVICE = 100  # characters


class InputHeader(Part, frozen=True):
    """What a model takes, as it stands in a file; see :class:`~deepjudge_core.models.input_spec.InputSpec`."""

    shape: tuple[Positive | None, ...]
    dtype: str
    layout: Layout | None

    def __post_init__(self) -> None:
        # The name only: numpy does not know all types, bfloat16 for one, where no framework is installed.
        if not self.dtype.isidentifier():
            raise ValueError(f"dtype: expected the name of a number type, found {self.dtype!r}")


class ModelHeader(Part, frozen=True, kw_only=True):
    """What a model was, as it stands in a file; see :class:`ModelInfo`. What is not known is left out."""

    name: str
    framework: str
    digest: str
    access: tuple[AccessName, ...]
    classes: int
    input: InputHeader
    layers: tuple[tuple[str, int], ...]
    isolation: Isolation = Isolation.NONE  # before there was any, models ran in the audit's own process
    device: str | UnsetType | None = UNSET
    files: Mapping[str, Sha256] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.files and self.files.get(ITSELF, self.digest) != self.digest:
            raise ValueError(f"files: expected the digest of the model, found {self.files[ITSELF]}")


@dataclass(frozen=True)
class ModelInfo:
    """What a model was: all that is kept of it.

    Attributes:
        name: What the user called it.
        framework: The adapter that opened it.
        digest: SHA-256, in hex.
        access: What could be asked of it.
        classes: Number of classes.
        input: What it takes.
        layers: Tap name to number of neurons, in forward order.
        isolation: How it was kept from all but answering.
        device: What its framework ran it on, in the framework's own words; None where that is not known.
        files: SHA-256, in hex, of each of its files, as :class:`~deepjudge_core.files.digests.FileDigests` has them;
            empty where it was none, or they are not known.
    """

    name: str
    framework: str
    digest: str
    access: Access
    classes: int
    input: InputSpec
    layers: Mapping[str, int]
    isolation: Isolation = Isolation.NONE
    device: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, layout: Layout | None = None) -> "ModelInfo":
        """Describe a model; ``layout`` is that of its input where it does not say."""
        spec = model.input.with_layout(layout)
        return cls(
            model.name,
            model.framework,
            model.digest,
            model.access,
            model.classes,
            spec,
            dict(model.layers),
            model.isolation,
            device=None if model.device is None else clean(str(model.device), _LONGEST_DEVICE),
            files=dict(model.files),
        )

    def header(self) -> ModelHeader:
        """As it stands in a file."""
        return ModelHeader(
            name=self.name,
            framework=self.framework,
            digest=self.digest,
            access=access_names(self.access),
            classes=self.classes,
            input=InputHeader(self.input.shape, self.input.dtype, self.input.layout),
            layers=tuple(self.layers.items()),
            isolation=self.isolation,
            # Not where nothing is known: so what was stored before has the digest that it had.
            device=self.device or UNSET,
            files=dict(self.files) or UNSET,
        )

    @classmethod
    def of_header(cls, header: ModelHeader) -> "ModelInfo":
        """The inverse of :meth:`header`."""
        access = Access(0)
        for name in header.access:
            access |= Access[name.upper()]
        return cls(
            name=header.name,
            framework=header.framework,
            digest=header.digest,
            access=access,
            classes=header.classes,
            input=InputSpec(header.input.shape, header.input.dtype, header.input.layout),
            layers=dict(header.layers),
            isolation=header.isolation,
            device=clean(header.device, _LONGEST_DEVICE) if header.device else None,
            files=header.files or {},
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON values of :meth:`header`."""
        values: dict[str, Any] = plain(self.header())
        return values

    @classmethod
    def from_json(cls, value: Any) -> "ModelInfo":
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: When it is none: where, and what was expected.
        """
        return cls.of_header(parse(ModelHeader, value))


def access_names(access: Access) -> tuple[AccessName, ...]:
    """The single kinds of an access, by name."""
    names: tuple[AccessName, ...] = get_args(AccessName)
    return tuple(name for name in names if Access[name.upper()] in access)
