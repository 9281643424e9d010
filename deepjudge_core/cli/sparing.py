"""What may be written where: never over a file that is read."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepjudge_core.components.registry import Adapters
from deepjudge_core.errors import UsageError


def spare(read: Iterable[str | Path | None], written: Iterable[Path | None], *, models: Adapters | None = None) -> None:
    """Refuse to write over a file that is read, however it was named: in a folder, by a glob, in a file.

    Args:
        read: Files that are read; None for none.
        written: Where files go; None for none.
        models: What reads what is read, if these are models: then no file in a folder that is one is written over, and
            none beside a model that holds a part of it.

    Raises:
        UsageError: Naming it.
    """
    is_kept = os.path.exists if models else os.path.isfile
    files = [Path(path) for path in read if path is not None and is_kept(path)]
    kept = {path.resolve() for path in files}
    for path in written:
        if path is None or not os.path.isfile(path):  # noqa: PTH113 - of any text
            continue
        target = path.resolve()
        if not kept.isdisjoint([target, *target.parents]) or (models and target in _parts(files, target, models)):
            raise UsageError(
                f"{path}: expected another file to write to, found one of the inputs", code="would-overwrite"
            )


def _parts(files: Iterable[Path], target: Path, adapters: Adapters) -> Iterator[Path]:
    # What belongs to the models that lie where something is to be written: their weights in other files, and what says
    # how they are read.
    from deepjudge_core.weights.reading.folder import described_by  # late: few commands write where models lie

    for file in files:
        if file.is_file() and file.absolute().parent.resolve() == target.parent:
            yield from (file.with_name(name).resolve() for name in (*adapters.parts([file]), *described_by(file)))


def spare_folder(read: Iterable[str | Path], folder: Path) -> None:
    """Refuse to write files into a folder in which models lie.

    Raises:
        UsageError: Naming it.
    """
    for path in read:
        if os.path.exists(path) and Path(path).parent.resolve() == folder.resolve():  # noqa: PTH110 - of any text
            raise UsageError(
                f"{folder}: expected an output folder that holds no model, found {Path(path).name} in it; "
                "choose another folder",
                code="would-overwrite",
            )
