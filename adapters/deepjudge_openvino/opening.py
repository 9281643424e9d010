"""Opens the files of OpenVINO's formats, each after a look at what it holds."""

from pathlib import Path

from deepjudge_core.errors import ModelError
from deepjudge_core.files import digests
from deepjudge_core.models.adapters import prefixed, readable
from deepjudge_core.models.outputs import Choice
from deepjudge_openvino.contents import check_frozen, check_ir, check_paddle
from deepjudge_openvino.files import WEIGHTS, examine
from deepjudge_openvino.graph import OpenVinoGraph
from deepjudge_openvino.model import GraphModel


def open_openvino(
    path: Path, *, name: str, batch_size: int | None, output: Choice, input_shape: tuple[int, ...] | None
) -> GraphModel:
    """Open an OpenVINO IR, a model of PaddlePaddle or a frozen graph of TensorFlow.

    Args:
        path: The file; what holds its weights lies beside it.
        name: What to call it.
        batch_size: Rows in a batch.
        output: The one that holds the scores, by its name or its number.
        input_shape: Of the inputs that it will be given, for axes of any length.

    Raises:
        ModelError: When it cannot be opened as a classifier.
    """
    suffix = path.suffix.lower()
    examine(path)
    weights = path.with_suffix(WEIGHTS[suffix]) if suffix in WEIGHTS else None
    beside = [weights] if weights and weights.is_file() else []
    with readable(name, "a model"), prefixed(name):
        if weights and not beside:  # PaddlePaddle's would then be files of any name
            raise ModelError(f"expected the weights next to it in {weights.name!r}, found no such file; copy it there")
        if suffix == ".xml":
            check_ir(path, beside[0].stat().st_size)
        elif suffix == ".pdmodel":
            check_paddle(path.read_bytes(), beside[0])
        else:
            check_frozen(path.read_bytes())
        digest = digests.of_file(path, beside).digest
        graph = OpenVinoGraph.read(path)
    return GraphModel(
        graph,
        name=name,
        framework="openvino",
        digest=digest,
        batch_size=batch_size,
        output=output,
        input_shape=input_shape,
    )
