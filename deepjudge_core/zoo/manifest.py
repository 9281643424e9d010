"""What is in a zoo: ``zoo.json``, written anew after each model, so that an interrupted zoo can be gone on with."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from msgspec import UNSET, UnsetType

from deepjudge_core.components.strata import Stratum
from deepjudge_core.errors import FileFormatError
from deepjudge_core.files import storage
from deepjudge_core.files.documents import Document, Json, Part, Positive, Share, parse, plain
from deepjudge_core.files.reading import NO_LIMIT, open_regular, read_json
from deepjudge_core.models.preprocessing import PreprocessingHeader
from deepjudge_core.sheets import Sheet, Shown
from deepjudge_core.version import VERSION

MANIFEST = "zoo.json"
SCHEMA = "deepjudge/zoo/1"

Kind = Literal["control", "stolen"]


class ZooModel(Document, frozen=True):
    """One model of a zoo.

    Attributes:
        file: Its path in the zoo's folder.
        kind: Whether it is independent of the victim or stolen from it.
        stratum: Of a control, what it was trained on.
        attack: Of a stolen model, how.
        options: All options of the attack, or of the control's training.
        seed: What all that was drawn was derived from.
        accuracy: Share of the test inputs that it classifies correctly, 0..1; None where its classes are not the
            victim's.
        far: Whether the accuracy is far below the victim's, so that thresholds do without it.
        digest: SHA-256 of the file.
        weights: SHA-256 of the weights: the same for the same seed, whatever is in the file besides.
        seconds: How long it took to make it.
    """

    file: str
    kind: Kind
    stratum: Stratum | None
    attack: str | None
    options: Json
    seed: int
    accuracy: float | None
    far: bool
    digest: str
    weights: str
    seconds: float

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.file.rpartition("/")[2]


class MissingModel(Document, frozen=True):
    """A model that could not be made.

    Attributes:
        name: What it would have been called.
        reason: Why not: one line.
        failed: Whether its making failed; else something was not there that it needs.
    """

    name: str
    reason: str
    failed: bool


class ZooVictim(Document, frozen=True):
    """The model that a zoo was made from.

    Attributes:
        path: What the user called it.
        framework: The adapter that opened it.
        digest: SHA-256 of its file.
        classes: How many classes it tells apart.
        accuracy: Share of the test inputs that it classifies correctly.
        preprocessing: What it expects of inputs in 0..1, as all models of the zoo do; unset for nothing.
    """

    path: str
    framework: str
    digest: str
    classes: Positive
    accuracy: Share
    preprocessing: PreprocessingHeader | UnsetType = UNSET


class _ZooManifest(Part, frozen=True, kw_only=True, tag_field="schema", tag=SCHEMA):
    deepjudge: str = VERSION
    victim: ZooVictim
    settings: Json
    models: tuple[ZooModel, ...]
    missing: tuple[MissingModel, ...]
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Zoo(Shown):
    """A folder of models made from one victim.

    Attributes:
        folder: Where it is.
        victim: The victim.
        settings: What all models were made with: seed, digests of the data, and so on.
        models: What was made.
        missing: What was not.
        limits: What it cannot show: a line for each.
    """

    folder: Path
    victim: ZooVictim
    settings: Json
    models: tuple[ZooModel, ...] = ()
    missing: tuple[MissingModel, ...] = ()
    limits: tuple[str, ...] = ()

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        rows = [
            (
                model.file,
                model.attack or model.stratum or "-",
                None if model.accuracy is None else f"{model.accuracy:.1%}",
                "far below the victim" if model.far else "",
            )
            for model in self.models
        ]
        facts = {
            "folder": str(self.folder),
            "victim": f"{self.victim.path} ({self.victim.framework}, {self.victim.classes} classes, "
            f"accuracy {self.victim.accuracy:.1%})",
            "models": f"{len(self.of('control', far=True))} controls, {len(self.of('stolen', far=True))} stolen",
            "missing": [f"{one.name}: {one.reason}" for one in self.missing],
            "limit": self.limits,
            "digest": self.victim.digest,
        }
        return Sheet("zoo", facts, ("model", "attack or data", "accuracy", "remark"), rows)

    def with_model(self, model: ZooModel) -> "Zoo":
        """The same with one model more, or with another one in the same file."""
        others = tuple(other for other in self.models if other.file != model.file)
        return replace(self, models=(*others, model))

    def of(self, kind: Kind, *, far: bool = False) -> tuple[ZooModel, ...]:
        """Its controls, or its stolen models.

        Args:
            kind: Which.
            far: Whether those whose accuracy is far below the victim's are among them.
        """
        return tuple(model for model in self.models if model.kind == kind and (far or not model.far))

    def path(self, model: ZooModel) -> Path:
        """Where a model is."""
        return self.folder / model.file


def save_zoo(zoo: Zoo) -> None:
    """Write the manifest.

    Raises:
        FileFormatError: When it cannot be written.
    """
    manifest = _ZooManifest(
        victim=zoo.victim, settings=zoo.settings, models=zoo.models, missing=zoo.missing, limits=zoo.limits
    )
    storage.write_bytes(zoo.folder / MANIFEST, (json.dumps(plain(manifest), indent=2, allow_nan=False) + "\n").encode())


def load_zoo(folder: Path) -> Zoo:
    """Read the manifest of a zoo.

    Raises:
        FileFormatError: When there is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise FileFormatError(f"{folder}: expected a zoo, made by 'deepjudge zoo', found no {MANIFEST}")
    content = read_json(path, "the manifest of a zoo")
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise FileFormatError(f"{path}: expected a {SCHEMA}, found other JSON")
    try:
        manifest = parse(_ZooManifest, content)
        zoo = Zoo(folder, manifest.victim, manifest.settings, manifest.models, manifest.missing, manifest.limits)
        outside = [model.file for model in zoo.models if not _is_inside(folder, model.file)]
    except (ValueError, OSError, RuntimeError) as error:
        raise FileFormatError(f"{path}: is damaged: {error}", code="damaged-file") from None
    if outside:
        raise FileFormatError(f"{path}: expected files in the zoo's own folder, found {outside[0]}")
    return zoo


def is_kept(zoo: Zoo, model: ZooModel) -> bool:
    """Whether a model's file is there as it was made."""
    try:
        with open_regular(zoo.path(model), "a model", NO_LIMIT) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == model.digest
    except (OSError, FileFormatError):
        return False


def recorded_control(path: Path, victim: str) -> ZooModel | None:
    """What its zoo says of a control; None of any other file, and of one that is not as it was made.

    Args:
        path: The control.
        victim: SHA-256 of the victim: what it has in common with another one says nothing.

    Raises:
        FileFormatError: When what is called like the manifest of a zoo is none, is damaged, or is of another victim.
    """
    for folder in (path.parent, path.parent.parent):
        if (folder / MANIFEST).is_file():
            zoo = load_zoo(folder)
            controls = (m for m in zoo.of("control", far=True) if zoo.path(m).resolve() == path.resolve())
            record = next((model for model in controls if is_kept(zoo, model)), None)
            if record and zoo.victim.digest != victim:
                raise FileFormatError(
                    f"{folder / MANIFEST}: expected the zoo of the victim {victim[:12]}, found that of "
                    f"{zoo.victim.path}, {zoo.victim.digest[:12]}"
                )
            return record
    return None


def _is_inside(folder: Path, file: str) -> bool:
    return (folder / file).resolve().is_relative_to(folder.resolve())
