"""Open a model, whatever it is: the adapter is chosen by the file's name or by the live object's type."""

from pathlib import Path
from typing import Any

from deepjudge_core.components import Adapter
from deepjudge_core.errors import DeepJudgeError, ModelError, UsageError
from deepjudge_core.model import Model
from deepjudge_core.plugins import Registry, load_registry


def open_model(source: Any, *, registry: Registry | None = None, **options: Any) -> Model:
    """Open a model.

    Args:
        source: A path, or a live object that an installed adapter accepts (``torch.nn.Module``, ``keras.Model``, ...).
            What is already a :class:`~deepjudge_core.model.Model` is returned as it is.
        registry: Where the adapters are; by default every installed one.
        options: Of the adapter: ``name``, ``batch_size``, ``input_shape`` of a live PyTorch module.

    Raises:
        ModelError: When it cannot be opened.
        UsageError: When no adapter, or more than one, reads it.
    """
    if isinstance(source, Model):
        return source
    registry = registry or load_registry()
    if not isinstance(source, str | Path):
        return _only(repr(type(source)), [a for a in registry.adapters.select() if a.accepts(source)], registry).open(
            source, **options
        )
    path = Path(source)
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    adapters = [a for a in registry.adapters.select() if path.name.lower().endswith(a.suffixes)]
    adapter = _only(str(path), adapters, registry)
    if path.is_file() and path.stat().st_size == 0:
        raise ModelError(f"{path}: expected a model, found an empty file")
    try:
        return adapter.open(path, **options)
    except DeepJudgeError:
        raise
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: cannot be opened by the {adapter.name} adapter: {text}") from error


def model_suffixes(registry: Registry) -> tuple[str, ...]:
    """File name endings that the installed adapters read."""
    return tuple(sorted({suffix for adapter in registry.adapters.select() for suffix in adapter.suffixes}))


def _only(source: str, adapters: list[Adapter], registry: Registry) -> Adapter:
    if not adapters:
        raise UsageError(
            f"{source}: no installed adapter reads it; expected a live model or a file ending in "
            f"{', '.join(model_suffixes(registry))}"
        )
    if len(adapters) > 1:
        raise UsageError(f"{source}: claimed by the adapters {' and '.join(a.name for a in adapters)}: uninstall one")
    return adapters[0]
