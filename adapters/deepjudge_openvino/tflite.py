"""What stands in a TFLite file: its operations and tensors, read without the library that runs them, and checked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from deepjudge_core.errors import ModelError
from deepjudge_core.text import shortened
from deepjudge_openvino.flatbuffers import Table
from deepjudge_openvino.nesting import expect_an_end

MAGIC = b"TFL3"
"""It stands behind the first four bytes."""

# By their numbers (schema.fbs), the first ones in their order.
_FIRST = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
    FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
    LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH
    SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN
    GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM
    STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM
    CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN
    TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN
    FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV
    REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE
    MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG
    QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
"""
# Those that no rule here asks for have a number for a name.
_NAMES = dict(enumerate(_FIRST.split())) | {
    123: "SELECT_V2",
    126: "BATCH_MATMUL",
    129: "CALL_ONCE",
    132: "CONV_3D",
    141: "CONV_3D_TRANSPOSE",
    142: "VAR_HANDLE",
    143: "READ_VARIABLE",
    144: "ASSIGN_VARIABLE",
    150: "GELU",
    152: "RELU_0_TO_1",
    158: "SIGN",
}
_LAST = 209  # of those that are known; later ones nobody has looked at
_PLACEHOLDER = 127  # in one byte, for those that need more
_CODE = {"CUSTOM", "DELEGATE", "CALL"}
_STABLEHLO_CALL = 173

# How many bytes a number takes (schema.fbs); what is no number is missing.
_SIZES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 8: 8, 9: 1, 10: 8, 11: 16, 12: 8, 15: 4, 16: 2, 18: 2}
_INTEGERS = {3, 7, 9, 17, 19, 20}

# Where the activation stands among an operation's options, and what stands there.
_FUSED = {
    **dict.fromkeys(("ADD", "DIV", "FULLY_CONNECTED", "L2_NORMALIZATION", "MUL", "RNN", "SUB"), 0),
    **dict.fromkeys(("CONCATENATION", "SVDF"), 1),
    **dict.fromkeys(("CONV_2D", "TRANSPOSE_CONV"), 3),
    **dict.fromkeys(("CONV_3D", "CONV_3D_TRANSPOSE", "DEPTHWISE_CONV_2D"), 4),
    **dict.fromkeys(("AVERAGE_POOL_2D", "L2_POOL_2D", "MAX_POOL_2D"), 5),
}
_ACTIVATIONS = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN"}
# Which fields of their options say what they run.
_CALLS = {"IF": (0, 1), "WHILE": (0, 1), "CALL_ONCE": (0,)}

_MOST_SUBGRAPHS = 10_000


@dataclass(frozen=True)
class Operator:
    """One operation.

    Attributes:
        kind: Its name in the schema.
        inputs: Numbers of the tensors that it reads, -1 for those that are left out.
        outputs: Of those that it gives.
        fused: The activation that it ends with; empty where there is none.
        options: The table of its options.
        calls: Numbers of the subgraphs that it runs.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    fused: str
    options: Table | None
    calls: tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """What a file holds.

    Attributes:
        graphs: The operations of each subgraph, in the order in which they are run; the first is the model.
        quantised: Whether it computes with integers in place of real numbers.
    """

    graphs: tuple[tuple[Operator, ...], ...]
    quantised: bool

    @property
    def kinds(self) -> set[str]:
        """Names of all its operations."""
        return {operator.kind for graph in self.graphs for operator in graph}


def read(data: bytes) -> Network:
    """Read a file, and refuse what no converter writes.

    Raises:
        ModelError: When it is none, is damaged, or holds what needs a library of its author; without the model's name
            in front.
    """
    if data[4:8] != MAGIC:
        raise ModelError("expected a TFLite model, found another format or a truncated file")
    root = Table.root(data)
    kinds = [_kind(table) for table in root.tables(1)]
    buffers = [_bytes(table, len(data)) for table in root.tables(4)]
    subgraphs = list(root.tables(2))
    if not 0 < len(subgraphs) <= _MOST_SUBGRAPHS:
        raise ModelError(f"expected a model of at most {_MOST_SUBGRAPHS} graphs, found {len(subgraphs)}")
    checked = [_check_tensors(graph, buffers) for graph in subgraphs]
    graphs = tuple(tuple(_operators(graph, kinds)) for graph in subgraphs)
    if not graphs[0]:
        raise ModelError("expected a TFLite model, found one without operations")
    expect_an_end({place: {c for o in graph for c in o.calls} for place, graph in enumerate(graphs)})
    return Network(graphs, any(checked))


def _kind(table: Table) -> str:
    code = max(table.number(0, "b"), table.number(3, "i"))
    name = _NAMES.get(code, str(code))
    custom = table.text(1)
    if name in _CODE or custom or not 0 <= code <= _LAST or code in (_PLACEHOLDER, _STABLEHLO_CALL):
        shown = shortened(custom) or name
        raise ModelError(
            f"expected TFLite operations, found {shown!r}, which needs its author's library (Flex "
            "needs TensorFlow); convert it with TFLite's own operations only"
        )
    return name


def _bytes(table: Table, size: int) -> int:
    # How many bytes a buffer has; large ones lie behind the tables.
    offset, length = table.number(1, "Q"), table.number(2, "Q")
    if offset > 1:
        if offset + length > size:
            raise ModelError("expected weights within the file, found others; it is damaged or truncated")
        return length
    return len(table.numbers(0, "u1"))


def _check_tensors(graph: Table, buffers: Sequence[int]) -> bool:
    # Whether some of them are quantised.
    quantised = False
    for tensor in graph.tables(0):
        kind, buffer = tensor.number(1, "b"), tensor.number(2, "I")
        shape = [int(axis) for axis in tensor.numbers(0)]
        if buffer >= max(len(buffers), 1) or min(shape, default=0) < 0:
            raise ModelError("expected weight tensors that exist, found others; the file is damaged")
        held = buffers[buffer] if buffers else 0
        size = _SIZES.get(kind, 0)
        sparse = tensor.table(6) is not None
        if held and size and not sparse and held < size * prod(shape):
            raise ModelError(
                f"expected data that matches the shape of its weights, found {held} bytes for {shape[:8]} "
                f"in {shortened(tensor.text(3))!r}; convert the model again"
            )
        scales = tensor.table(4)
        quantised |= kind in _INTEGERS and scales is not None and len(scales.numbers(2, "f4")) > 0
    return quantised


def _operators(graph: Table, kinds: Sequence[str]) -> Iterator[Operator]:
    tensors = sum(1 for _ in graph.tables(0))
    for table in graph.tables(3):
        code = table.number(0, "I")
        inputs, outputs = (tuple(int(n) for n in table.numbers(field)) for field in (1, 2))
        if code >= len(kinds) or not all(-1 <= n < tensors for n in (*inputs, *outputs)):
            raise ModelError("expected operations on tensors that exist, found others; the file is damaged")
        kind, options = kinds[code], table.table(4)
        fused = options.number(_FUSED[kind], "b") if options and kind in _FUSED else 0
        calls = tuple(options.number(field) for field in _CALLS.get(kind, ())) if options else ()
        yield Operator(kind, inputs, outputs, _ACTIVATIONS.get(fused, ""), options, calls)
