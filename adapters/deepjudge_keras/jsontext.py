"""Reads what strangers write in JSON."""

import json
from typing import Any

from deepjudge_core.errors import ModelError
from deepjudge_core.files.reading import once, parse_json

LENGTH = 2**23
"""Characters that a text may have; the configurations of great models have some hundred thousand."""

_DEPTH = 100


def parse(text: str | bytes) -> Any:
    """What a text holds, which is neither long nor deep.

    Raises:
        ModelError: When it is something else.
    """
    if len(text) > LENGTH:
        raise ModelError(f"its configuration has more than {LENGTH} characters; export it to ONNX")
    try:
        content = json.loads(text, object_pairs_hook=once)
        _expect_depth(content, 0)
    except (ValueError, RecursionError) as error:
        raise ModelError("its configuration is not JSON, or is nested too deep; save the model again") from error
    return content


def parse_strictly(text: bytes) -> Any:
    """The same, within the bounds of deepjudge's own files, for who reads it outside of the sandbox.

    Raises:
        ModelError: When it is something else.
    """
    if len(text) > LENGTH:
        raise ModelError(f"its configuration has more than {LENGTH} characters; export it to ONNX")
    try:
        return parse_json(text, _DEPTH)
    except ValueError as error:
        raise ModelError(f"its configuration is not valid JSON: {error}; save the model again") from error


def _expect_depth(node: Any, depth: int) -> None:
    if depth > _DEPTH:
        raise ModelError(f"its configuration is nested more than {_DEPTH} deep; export it to ONNX")
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _expect_depth(item, depth + 1)
