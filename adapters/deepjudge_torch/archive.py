"""What a file of ``torch.export`` may hold so that loading it runs nothing but torch's own code, and where it runs.

``torch.export.load`` unpickles weights, constants and sample inputs where the file asks for it, evaluates texts as
sympy expressions, and resolves the names of operations in torch's modules. Files that make use of that are refused.
Written against the archives of torch 2.13. A file that is let through may still exhaust memory.
"""

import ast
import contextlib
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from deepjudge_core.files.reading import once
from deepjudge_torch.documents import entries

# What torch.export.save writes, below the folder that every archive has.
_ENTRIES = re.compile(
    r"models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id|alignment)|\.format_version"
    r"|extra/[\w.]*"
)
_TENSORS = re.compile(r"(weight|tensor)_\d+")
_SYMBOL = re.compile(r"[a-z]+\d+")
# Operations are functions of tensors and numbers; ``from_file`` reads any file, ``save`` writes one.
_OPERATIONS = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|quantized_decomposed)\.(?!from_file|save\b)\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+"
    r"|torch\.\w*sym_(not|max|min|sum|ite|int|float|sqrt)"
)
# sympy's and torch's, as they stand in the sizes of tensors.
_FUNCTIONS = {
    name
    for line in """
        Symbol Integer Rational Float Add Mul Pow Mod Max Min Abs Eq Equality Ne Unequality Ge GreaterThan Gt
        StrictGreaterThan Le LessThan Lt StrictLessThan And Or Not Piecewise ExprCondPair Tuple FloorDiv
        ModularIndexing CleanDiv CeilDiv CeilToInt FloorToInt IntTrueDiv FloatTrueDiv PythonMod PowByNatural
        FloatPow TruncToInt TruncToFloat RoundToInt RoundDecimal ToFloat Identity Where LShift RShift
        OpaqueUnaryFn_sqrt ceiling floor
    """.splitlines()
    for name in line.split()
}


def hidden_code(path: Path) -> str | None:
    """Say what in an archive could run code of its author when it is loaded; None where nothing is found.

    Raises:
        Exception: Of any kind, when the archive is damaged.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            return f"two entries named {twice[0]!r}"
        roots = {name.partition("/")[0] for name in names}
        if len(roots) != 1:
            return f"{len(roots)} folders"
        entries = {name.partition("/")[2]: name for name in names}
        other = next((entry for entry in entries if not _ENTRIES.fullmatch(entry)), None)
        if other is not None:
            return f"the entry {other!r}"
        for entry, name in entries.items():
            if entry.endswith("_config.json"):
                for payload in json.loads(archive.read(name), object_pairs_hook=once)["config"].values():
                    if payload["use_pickle"] or not _TENSORS.fullmatch(payload["path_name"]):
                        return f"the pickled object {payload['path_name']!r}"
            elif entry.startswith("data/sample_inputs/") and not _is_plain(archive.read(name)):
                return "pickled sample inputs"
            elif entry.startswith("models/"):
                code = _in_graph(json.loads(archive.read(name), object_pairs_hook=once))
                if code is not None:
                    return code
    return None


@contextlib.contextmanager
def for_the_cpu(path: Path) -> Iterator[BinaryIO]:
    """The file, open, or one in memory that says the CPU wherever it says another processor.

    Weights stand in a file of ``torch.export`` as bytes; what names the processor are the descriptions of tensors, and
    the arguments of operations that make some. Sample inputs, of which no one makes use, are left out then.
    """
    with path.open("rb") as file:
        with zipfile.ZipFile(file) as archive:
            texts = {name: archive.read(name) for name in archive.namelist() if name.endswith(".json")}
            documents = {name: json.loads(text, object_pairs_hook=once) for name, text in texts.items()}
            foreign = [device for document in documents.values() for device in _devices(document)]
            if foreign:
                for device in foreign:
                    device.update(type="cpu", index=None)
                texts = {name: json.dumps(document).encode() for name, document in documents.items()}
                yield _rewritten(archive, texts)
                return
        file.seek(0)
        yield file


def _devices(document: Any) -> Iterator[dict[str, Any]]:
    # Those that are not the CPU.
    for key, value in entries(document):
        if key in ("device", "as_device") and isinstance(value, dict) and value.get("type") not in ("cpu", "meta"):
            yield value


def _rewritten(archive: zipfile.ZipFile, texts: Mapping[str, bytes]) -> BinaryIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as copy:
        for name in archive.namelist():
            data = b"" if "/data/sample_inputs/" in name else texts.get(name)
            copy.writestr(name, archive.read(name) if data is None else data)
    buffer.seek(0)
    return buffer


def _is_plain(data: bytes) -> bool:
    if not data:
        return True
    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # torch would try again without the limit
        return False
    return True


def _in_graph(model: Any) -> str | None:
    for key, value in entries(model):
        if key == "expr_str" and not _is_expression(value):
            return f"the expression {str(value)[:60]!r}"
        if key == "target" and not (isinstance(value, str) and _OPERATIONS.fullmatch(value)):
            return f"the operation {str(value)[:60]!r}"
    return None


def _is_expression(text: Any) -> bool:
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return False
    return all(map(_is_arithmetic, ast.walk(tree)))


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or node.id in ("true", "false", "oo") or bool(_SYMBOL.fullmatch(node.id))
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or bool(_SYMBOL.fullmatch(node.value))
    plain = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Compare, ast.cmpop, ast.Tuple)
    return isinstance(node, (*plain, ast.keyword, ast.Load))
