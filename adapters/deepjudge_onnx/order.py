"""Graphs whose operations stand in an order in which they can be computed."""

import heapq
from collections import defaultdict
from typing import Any

from onnx import FunctionProto, GraphProto, ModelProto

from deepjudge_core.errors import ModelError
from deepjudge_onnx.graph import bodies, reads


def in_order(model: ModelProto) -> ModelProto:
    """The same model, with each operation behind those whose outputs it reads; the one given where that is so already.

    ONNX asks for such an order, and ONNX Runtime does not: converters to float16 write their casts behind everything
    else. Operations stay in the order that they have, as far as that goes; those in branches, loops and functions are
    ordered, too.

    Raises:
        ModelError: When operations need one another, without the model's name in front.
    """
    if all(map(_is_ordered, (model.graph, *model.functions))):
        return model
    changed = ModelProto()
    changed.CopyFrom(model)
    for body in (changed.graph, *changed.functions):
        _sort(body)
    return changed


def _is_ordered(body: GraphProto | FunctionProto) -> bool:
    later = {name for node in body.node for name in node.output}
    for node in body.node:
        if not later.isdisjoint(reads(node)) or not all(map(_is_ordered, bodies(node))):
            return False
        later.difference_update(node.output)
    return True


def _sort(body: GraphProto | FunctionProto) -> None:
    nodes = list(body.node)
    for node in nodes:
        for inner in bodies(node):
            _sort(inner)
    producers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    needs = [{producers[name] for name in reads(node) if name in producers} for node in nodes]
    users = defaultdict[int, list[int]](list)
    for place, needed in enumerate(needs):
        for producer in needed:
            users[producer].append(place)
    missing = [len(needed) for needed in needs]
    ready = [place for place, count in enumerate(missing) if not count]
    order: list[Any] = []
    while ready:
        place = heapq.heappop(ready)
        order.append(nodes[place])
        for user in users[place]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, user)
    if len(order) < len(nodes):
        stuck = next(node for node, count in zip(nodes, missing, strict=True) if count)
        name = next(filter(None, stuck.output), "")
        raise ModelError(
            f"expected operations that do not need their own output, found a cycle: {stuck.op_type[:60]} {name[:60]!r}"
        )
    copies = [type(node).FromString(node.SerializeToString()) for node in order]
    del body.node[:]
    body.node.extend(copies)
