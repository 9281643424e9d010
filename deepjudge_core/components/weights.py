"""Read the weights of a model, whatever it is stored in: the adapter is chosen as for models that are run."""

import contextlib
import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepjudge_core import progress
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.opening import digested, resolve
from deepjudge_core.components.registry import Adapters, Registry, load_registry
from deepjudge_core.errors import DeepJudgeError, ModelError, first_line
from deepjudge_core.files.digests import FileDigests
from deepjudge_core.models.batched import BatchedModel
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access, Model
from deepjudge_core.models.sketcher import StoredSketcher
from deepjudge_core.weights.reading import lora
from deepjudge_core.weights.values import StoredWeights


def info_of_weights(name: str, framework: str) -> ModelInfo:
    """What a model is of which nothing but its weights is looked at; who knows its digest and files adds them."""
    return ModelInfo(name, framework, "", Access.WEIGHTS, 0, InputSpec(()), {})


@contextlib.contextmanager
def open_weights(
    source: Any, *, registry: Registry | None = None, adapter: str | None = None, **options: Any
) -> Iterator[StoredSketcher]:
    """Open the weights of a file, a folder or a live model in this process, until the context ends. Nothing is run.

    Args:
        source: A path, a live object of a framework, or a model that was opened from one.
        registry: Where the adapters are; by default every installed one.
        adapter: Name of the adapter; by default the one that reads the file.
        options: Of the adapter's ``weights``.

    Raises:
        ModelError: When they cannot be read, or the file of an open model is another one by now.
        UsageError: When no installed adapter, or more than one, reads it.
    """
    adapters, model = (registry or load_registry()).adapters, None
    if isinstance(source, BatchedModel) and source.origin is not None:
        shape = source.input.shape
        known = {} if None in shape else {"input_shape": shape}
        model, options = source, {**known, **source.origin.options, **options}
        source, adapter = source.origin.source, source.origin.adapter
    path, label, chosen = resolve(source, adapters, adapter)
    if isinstance(named := model or path, Model):
        label = named.name
    if chosen is None or chosen.weights is None:
        if not isinstance(path, Path):
            raise ModelError(
                f"{label}: expected a model whose weights can be read, found a live one that shows none; save it, and "
                "name the file",
                code="no-weights",
            )
        raise unreadable(label, adapters)
    with progress.task(f"opening {label}", 1):
        weights = read_by(chosen, path, label, options)
    try:
        info = info_of_weights(label, chosen.name)
        if isinstance(path, Path):
            found = digested_with_base(path, chosen, lora.base_of(path, options.get("base"), label), adapters)
            if model and model.files not in ({}, found.files):
                raise ModelError(
                    f"{label}: expected the file as it was when it was opened, found that it changed; open it again",
                    code="not-a-file",
                )
            info = replace(info, digest=found.digest, files=found.files)
        else:
            info = replace(info, digest=_digest(weights))
        yield StoredSketcher(info, weights)
    finally:
        weights.close()


def digested_with_base(path: Path, adapter: Adapter, base: Path | None, adapters: Adapters) -> FileDigests:
    """The digests of a model's files, and of those of the model that it changes.

    Args:
        path: The model.
        adapter: The one that reads it.
        base: What it changes; None for nothing.
        adapters: The installed ones.

    Raises:
        OSError, ModelError: When they cannot be read.
        UsageError: When no installed adapter, or more than one, reads the base.
    """
    own = digested(path, adapter)
    return own if base is None else own.with_base(digested(base, adapters.of_file(base, str(base))))


def _digest(weights: StoredWeights) -> str:
    digest = hashlib.sha256()
    for name, spec in weights.tensors.items():
        digest.update(f"{name} {spec.dtype} {spec.shape}\n".encode() + weights.read(name).tobytes())
    return digest.hexdigest()


def unreadable(label: str, adapters: Adapters) -> ModelError:
    """What is said of a model whose weights no installed adapter reads."""
    kinds = ", ".join(sorted({suffix for one in adapters.claimed() if one.weights for suffix in one.suffixes}))
    return ModelError(
        f"{label}: expected a file whose weights can be read without running it, such as one ending in {kinds}, found "
        "another format",
        code="no-weights",
    )


def read_by(adapter: Adapter, source: Any, label: str, options: dict[str, Any]) -> StoredWeights:
    """Read weights with an adapter that has ``weights``; ``label`` is what messages call the model.

    Raises:
        ModelError: When they cannot be read; options that the adapter does not take for weights are left out.
    """
    read = adapter.weights
    if read is None:
        raise ModelError(f"{label}: expected an adapter that reads weights, found {adapter.name}, which reads none")
    taken = {name: value for name, value in options.items() if name in inspect.signature(read).parameters}
    try:
        return read(source, **{**taken, "name": label})
    except DeepJudgeError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"{label}: the {adapter.name} adapter cannot read its weights: {first_line(error)}") from error
