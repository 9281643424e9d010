"""Names of weights that an exporter turned round, and gave a number in place of their name.

A dense layer of PyTorch becomes a product with the transpose of its weights, ``onnx::MatMul_271`` or ``val_105``; which
module it was, the product says.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from onnx import ModelProto, NodeProto

from deepjudge_core.weights.values import Roles
from deepjudge_onnx.graph import attribute

_NUMBERED = re.compile(r"onnx::\w{1,40}|val_\d{1,20}", re.ASCII)
# How torch's newer exporter notes the modules that an operation is in, from the outermost on; its last entry is the
# operation. The older one makes a path of them.
_SCOPES = "pkg.torch.onnx.name_scopes"
_SCOPE = re.compile(r"'([\w.]{1,300})'", re.ASCII)
_PATH = re.compile(r"((?:/[\w.]{1,300})+)/(?:MatMul|Gemm)(?:_\d+)?", re.ASCII)


def turned(model: ModelProto) -> dict[str, str]:
    """The matrices that are multiplied from the right and have no name, by the name of their module's weights."""
    matrices = {held.name: list(held.dims) for held in model.graph.initializer if _NUMBERED.fullmatch(held.name)}
    taken, found = {held.name for held in model.graph.initializer}, dict[str, str]()
    for node in model.graph.node:
        right = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
        if not right or len(node.input) < 2 or len(matrices.get(node.input[1], ())) != 2:
            continue
        module = _module(node)
        name = f"{module}.weight"
        if module and name not in taken and node.input[1] not in found.values():
            taken.add(name)
            found[name] = node.input[1]
    return found


def with_names(
    roles: Roles | None, names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Roles | None, dict[str, str]]:
    """The same roles with matrices turned back, and those that can be: all but such as are reshaped first.

    Args:
        roles: By the names in the file.
        names: As :func:`turned` gives them.
        shapes: Of the tensors in the file.
    """
    layers = roles.layers if roles else ()
    views = [view for layer in layers for view in layer.views]
    reshaped = {view.tensor for view in views if view.shape not in (None, shapes.get(view.tensor))}
    kept = {name: held for name, held in names.items() if held not in reshaped}
    if roles is None:
        return None, kept
    own = {held: name for name, held in kept.items()}
    changed = []
    for layer in layers:
        views = [
            replace(view, tensor=own[view.tensor], shape=None, axes=tuple(1 - axis for axis in view.axes))
            if view.tensor in own
            else view
            for view in layer.views
        ]
        changed.append(replace(layer, views=tuple(views)))
    return replace(roles, layers=tuple(changed)), kept


def _module(node: NodeProto) -> str:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    modules = _SCOPE.findall(scopes)[:-1]
    if modules:
        return str(modules[-1])
    path = _PATH.fullmatch(node.name)
    return path[1].strip("/").replace("/", ".") if path else ""
