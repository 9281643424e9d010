"""Names of matrices that an exporter took away: it transposes weights, and calls what it gets by numbers.

Exporters say of each multiplication which module of the model it is a part of. PyTorch's exporter says it in the
metadata of the node (``pkg.torch.onnx.name_scopes``), its older one in the node's name (``/layers.0/mlp/up/MatMul``).
"""

import re
from collections import Counter

from onnx import ModelProto, NodeProto

_SCOPES = "pkg.torch.onnx.name_scopes"
_LONGEST = 4096
_PRODUCTS = ("MatMul", "Gemm")


def module_names(model: ModelProto) -> dict[str, str]:
    """What weights that are multiplied with are called in the model that was exported, by their names in the graph.

    Args:
        model: Without local functions.

    Returns:
        Those alone that lost their names, and of which no two would have one name.
    """
    taken = {held.name for held in model.graph.initializer}
    found = {
        node.input[1]: f"{module}.weight"
        for node in model.graph.node
        if node.op_type in _PRODUCTS and len(node.input) > 1 and node.input[1] in taken
        if not node.input[1].endswith(".weight") and (module := _module(node))
    }
    counts = Counter(found.values())
    return {name: usual for name, usual in found.items() if counts[usual] == 1 and usual not in taken}


def _module(node: NodeProto) -> str:
    """The path of the module that a node is a part of; empty where it is not said."""
    scopes = next((pair.value for pair in node.metadata_props if pair.key == _SCOPES), "")
    if scopes and len(scopes) <= _LONGEST:
        # A list of paths as Python writes it, from the whole model to the operation itself.
        paths: list[str] = ["", *re.findall(r"'([^']*)'", scopes)]
        return paths[-2] if len(paths) > 1 else ""
    if node.name.startswith("/") and len(node.name) <= _LONGEST:
        return ".".join(node.name.split("/")[1:-1])
    return ""
