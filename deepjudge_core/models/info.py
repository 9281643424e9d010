"""What a model was: all that is kept of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from deepjudge_core.files.digests import ITSELF
from deepjudge_core.models.model import Access, InputSpec, Isolation, Model
from deepjudge_core.text import clean
from deepjudge_core.types import Layout

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_DEVICE = 100  # characters


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

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        # Not where nothing is known: so what was stored before has the digest that it had.
        known = {"device": self.device, "files": dict(self.files)}
        return {
            "name": self.name,
            "framework": self.framework,
            "digest": self.digest,
            "access": [flag.name.lower() for flag in Access if flag in self.access and flag.name],
            "classes": self.classes,
            "input": {"shape": list(self.input.shape), "dtype": self.input.dtype, "layout": self.input.layout},
            "layers": [[name, width] for name, width in self.layers.items()],
            "isolation": str(self.isolation),
            **{name: value for name, value in known.items() if value},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ModelInfo":
        """The inverse of :meth:`to_json`."""
        access = Access(0)
        for name in value["access"]:
            access |= Access[name.upper()]
        return cls(
            name=str(value["name"]),
            framework=str(value["framework"]),
            digest=str(value["digest"]),
            access=access,
            classes=int(value["classes"]),
            input=_spec(value["input"]),
            layers={str(name): int(width) for name, width in value["layers"]},
            # Before there was any, models ran in the audit's own process.
            isolation=Isolation(value.get("isolation", Isolation.NONE)),
            device=None if value.get("device") is None else clean(str(value["device"]), _LONGEST_DEVICE),
            files=_files(value.get("files", {}), str(value["digest"])),
        )


def _files(value: Any, digest: str) -> dict[str, str]:
    files = {str(name): str(sha256) for name, sha256 in value.items()}
    if not all(_SHA256.fullmatch(sha256) for sha256 in files.values()) or files.get(ITSELF, digest) != digest:
        raise ValueError("files whose digests are none, or not that of the model")
    return files


def _spec(value: Mapping[str, Any]) -> InputSpec:
    shape, dtype, layout = tuple(value["shape"]), value["dtype"], value["layout"]
    if not all(axis is None or (type(axis) is int and axis > 0) for axis in shape):
        raise ValueError("an input without a shape")
    # The name only: numpy does not know all types, bfloat16 for one, where no framework is installed.
    if not str(dtype).isidentifier() or layout not in (None, *get_args(Layout)):
        raise ValueError("an input of another type or layout")
    return InputSpec(shape, str(dtype), layout)
