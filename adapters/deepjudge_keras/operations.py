"""Refuses a SavedModel whose graph plainly does more than compute. What is not plain is left to the sandbox."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deepjudge_core.errors import ModelError

_OUTSIDE = re.compile(
    "File|Reader|Dataset|PyFunc|Summary|Snapshot|Rpc|Debug|Dump|LMDB|^DTensor(Save|Restore)|^Distributed|^DataService"
    "|^(ImmutableConst|LoadAndRemapMatrix|PrintV2|RecordInput|RemoteCall|_?(Host)?(Send|Recv)|ImportEvent"
    "|CalibrationStatisticsSaver)$"
)
"""Operations that read or write files, run Python or speak to others; but not ``ShardedFilename``, which is a text."""

_CHECKPOINTS = re.compile("^(Save|SaveSlices|SaveV2|Restore|RestoreSlice|RestoreV2|MergeV2Checkpoints)$")
"""Operations of the functions by which every SavedModel saves and restores its variables."""

_TEXTS = {"ShardedFilename", "ShardedFilespec"}


def expect_plain(meta: Any) -> None:
    """Look through a ``MetaGraphDef``.

    Raises:
        ModelError: When it holds an operation on files, or one that saves or restores where inputs are answered.
    """
    functions = {function.signature.name: function for function in meta.graph_def.library.function}
    everywhere = [*meta.graph_def.node, *(node for function in functions.values() for node in function.node_def)]
    for node in everywhere:
        if _OUTSIDE.search(node.op) and node.op not in _TEXTS:
            raise ModelError(f"a graph with the operation {node.op}, which does more than compute; export it to ONNX")
    for name in _reachable(meta.object_graph_def.concrete_functions, functions):
        for node in functions[name].node_def:
            if _CHECKPOINTS.search(node.op):
                raise ModelError(f"a graph that uses {node.op} to compute its answers; export it to ONNX")


def _reachable(names: Iterable[str], functions: Mapping[str, Any]) -> Iterator[str]:
    """Names of the functions that some functions call, and their own."""
    waiting, visited = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in visited or name not in functions:
            continue
        visited.add(name)
        yield name
        for node in functions[name].node_def:
            for value in node.attr.values():
                waiting += [value.func.name, *(function.name for function in value.list.func)]
