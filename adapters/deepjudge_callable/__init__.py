"""Opens callables and estimators: whatever answers a batch of inputs with scores, and can be asked for nothing else.

An estimator is told by its methods, as scikit-learn has them: no framework is imported.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.errors import ModelError
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Model

_PICKLES = (".joblib", ".pkl", ".pickle", ".sav")


@hookimpl
def deepjudge_adapters() -> Iterable[Adapter]:
    """Give the adapter. It reads no files: running a stranger's Python is not opening a model."""
    return [Adapter(name="callable", suffixes=(), accepts=_accepts, open=_open, general=True, conversion=_conversion)]


def _conversion(path: Path) -> str | None:
    if path.suffix.lower() not in _PICKLES:
        return None
    target = f"{path.name.partition('.')[0] or 'model'}.onnx"
    return (
        "if it holds an estimator of scikit-learn, load it in your own program and judge it from Python, or export it: "
        f"open({target!r}, 'wb').write(skl2onnx.to_onnx(estimator, inputs[:1]).SerializeToString())"
    )


def _accepts(source: object) -> bool:
    return callable(source) or _is_estimator(source)


def _is_estimator(source: object) -> bool:
    # An instance: the class has the methods, too.
    return not isinstance(source, type) and callable(getattr(source, "get_params", None)) and hasattr(source, "fit")


def _open(
    source: Any,
    *,
    name: str | None = None,
    batch_size: int | None = None,
    input_shape: Sequence[int] | None = None,
    classes: int | None = None,
    scores: str | None = None,
    dtype: str = "float32",
    expected: InputSpec | None = None,
) -> Model:
    from deepjudge_callable.estimators import asked_as_function
    from deepjudge_callable.model import CallableModel, name_of

    name = name or name_of(source)
    if isinstance(source, type):
        raise ModelError(f"{name}: expected a model, found a class: make one of it")
    notes: tuple[str, ...] = ()
    if _is_estimator(source):
        source, input_shape, classes, notes = asked_as_function(source, name, input_shape, classes)
    model = CallableModel(
        source,
        name=name,
        input_shape=input_shape,
        classes=classes,
        scores=scores,
        dtype=dtype,
        layout=expected.layout if expected and expected.shape == input_shape else None,
        batch_size=batch_size,
    )
    model.notes = notes
    return model
