"""The weights of one model as they stand in a file, what each tensor is for, and the sketch that is made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from deepjudge_core.files.documents import Count, Document, Json, Lines, Positive
from deepjudge_core.types import Array

LayerKind = Literal["mlp", "value", "residual", "dense", "convolutional", "recurrent"]
"""What the neurons of a layer are: hidden units of a transformer's MLP; dimensions of a head's values; dimensions of
the residual stream; units of a dense layer; channels of a convolution; units of a recurrent layer."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor in a file.

    Attributes:
        shape: Its axes.
        dtype: Element type by the format's own name, such as ``BF16`` or ``Q4_K``.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Scale:
    """Numbers by which the rows of a matrix are multiplied, such as those of a batch normalisation behind it.

    Attributes:
        tensor: ``(neurons,)``; what they are multiplied by. None for 1.
        variance: ``(neurons,)``; they are divided by the root of it. None for 1.
        epsilon: What is added to the variance.
    """

    tensor: str | None
    variance: str | None = None
    epsilon: float = 0.0


@dataclass(frozen=True)
class View:
    """A matrix of which the neurons of a layer are the rows.

    Attributes:
        tensor: The tensor that it is a part of.
        axes: The tensor's axes in the order in which they are read: first that of the neurons; the others become one.
        shape: What the tensor is reshaped to before that, such as the pictures that a dense layer flattens; None for
            its own shape.
        rows: First neuron along its axis and the one behind the last, of tensors that hold several matrices; None for
            all.
        columns: First place along the second of the axes and the one behind the last, where the others are of another
            basis, as after a concatenation; None for all.
        scales: What the rows are multiplied by. Of no matter for their directions, but for the sign.
        basis: What the columns stand for: ``inputs``, ``outputs``, ``residual``, ``kernel`` (places of a depthwise
            convolution), or the name of the layer, one before this in the list of layers, whose neurons they are.
        gain: A tensor by which the columns are multiplied, such as the gain of the normalisation before; None for none.
        gain_plus: What is added to the gain first: 1 where a model stores the gain less 1.
        signed: Whether a neuron's sign is fixed. If not, ``w`` and ``-w`` are the same neuron.
    """

    tensor: str
    axes: tuple[int, ...]
    basis: str
    shape: tuple[int, ...] | None = None
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None
    scales: tuple[Scale, ...] = ()
    gain: str | None = None
    gain_plus: float = 0.0
    signed: bool = True


@dataclass(frozen=True)
class NeuronLayer:
    """Neurons that may stand in any order: if all views are permuted together, the network computes the same.

    Attributes:
        name: By which other layers refer to it.
        block: Its place in forward order, counted over layers of its kind; blocks of a transformer from 0.
        kind: What its neurons are.
        width: Number of neurons.
        views: Its matrices, in an order that depends on the kind alone.
    """

    name: str
    block: int
    kind: LayerKind
    width: int
    views: tuple[View, ...]


@dataclass(frozen=True)
class Roles:
    """What each tensor of a model is for.

    Attributes:
        family: Name of the kind of network, such as ``llama`` or ``graph``.
        layers: In forward order. A test may go through them in this order: the columns of each view stand for
            something fixed, or for neurons of a layer before.
        notes: What a reader should know: layers that are left out, and why.
        embedding: The matrix ``(tokens, residual)``, or of patches ``(pixels, residual)``; None where there is none.
        unembedding: The matrix ``(tokens, residual)`` of the output, which may be the same; None where there is none.
        fixed_residual: Whether something, such as sinusoidal positions, fixes the order of the residual dimensions.
        centred: Whether all that reads the residual stream subtracts its mean first, as LayerNorm does before a block.
        guessed: Whether the layers were found by shapes in order alone, so that several may share one order of neurons.
    """

    family: str
    layers: tuple[NeuronLayer, ...]
    embedding: View | None = None
    unembedding: View | None = None
    fixed_residual: bool = False
    centred: bool = False
    guessed: bool = False
    notes: tuple[str, ...] = ()


class StoredWeights(Protocol):
    """The weights of one model, read a part at a time; nothing of the model is run.

    Attributes:
        name: What a person calls it.
        format: Name of the format, such as ``GGUF``.
        tensors: Name to shape and element type, in the order of the file.
        config: The configuration that stands beside or among them; empty where there is none.
        roles: What the tensors are for, if the format's own graph says it; otherwise their names have to tell.
    """

    name: str
    format: str
    tensors: Mapping[str, TensorSpec]
    config: Json
    roles: Roles | None

    def tokens(self) -> tuple[str, ...] | None:
        """The vocabulary, by the tokens' numbers; None where there is none."""

    def read(self, tensor: str, rows: slice | None = None) -> Array:
        """Rows along the first axis, float32, copied.

        Args:
            tensor: One of :attr:`tensors`.
            rows: A slice of step 1; None for all.

        Raises:
            ModelError: When the file is damaged.
        """

    def close(self) -> None:
        """Give the file back."""


_MOST = {"rank": 1024, "neurons": 4096, "tokens": 4096}
"""What a plan may ask for, so that a suite from anybody takes neither time nor memory of whoever observes by it."""


class LayerPlan(Document, frozen=True):
    """A layer of the victim that is compared: how many neurons, and which are picked stands in the plan's arrays."""

    name: str
    block: Count
    kind: LayerKind
    width: Positive


class PlanHeader(Document, frozen=True):
    """A :class:`WeightPlan` without its arrays, as it stands in a file."""

    seed: int
    rank: Positive
    family: str
    depth: Positive
    layers: tuple[LayerPlan, ...]
    tokens: Lines = ()
    flat: Count = 0
    anchored: tuple[Count, ...] = ()


def _check_places(layers: Sequence["LayerPlan | LayerSketchHeader"]) -> None:
    # The same neurons twice would be taken for two tests that are independent of one another.
    if len({(layer.kind, layer.block) for layer in layers}) < len(layers):
        raise ValueError("two layers have one place")


@dataclass(frozen=True, eq=False)
class WeightPlan:
    """How weights are sketched: the same for the victim and for all that are compared with it.

    Attributes:
        seed: What all randomness is derived from.
        rank: Numbers that are kept of a row.
        family: Of the victim.
        depth: How many layers of the first one's kind the victim has.
        layers: The victim's layers that are compared.
        neurons: For each of them ``(k,)`` int64, the neurons that are picked, in rising order.
        ids: ``(t,)`` int64, rows of the victim's embedding that say what the residual dimensions mean.
        tokens: Their strings; empty where the victim has no vocabulary.
        flat: Length of the image of all weights that sketches have; 0 if they have none.
        anchors: Place of a layer to the sketch of its picked neurons ``(k, views, rank)``, float16, of a victim whose
            neurons are matched layer by layer.
    """

    seed: int
    rank: int
    family: str
    depth: int
    layers: tuple[LayerPlan, ...]
    neurons: tuple[Array, ...]
    ids: Array
    tokens: tuple[str, ...] = ()
    flat: int = 0
    anchors: Mapping[int, Array] = field(default_factory=dict)

    def header(self) -> PlanHeader:
        """All but the arrays."""
        named = self.seed, self.rank, self.family, self.depth, self.layers, self.tokens, self.flat
        return PlanHeader(*named, tuple(self.anchors))

    def arrays(self, prefix: str) -> dict[str, Array]:
        """The arrays, by names that begin with ``prefix``."""
        picked = {f"{prefix}neurons.{place}": neurons for place, neurons in enumerate(self.neurons)}
        anchors = {f"{prefix}anchors.{place}": anchor for place, anchor in self.anchors.items()}
        return picked | anchors | {f"{prefix}ids": self.ids}

    @classmethod
    def of_header(cls, header: PlanHeader, arrays: Mapping[str, Array], prefix: str) -> "WeightPlan":
        """The inverse of :meth:`header` and :meth:`arrays`.

        Raises:
            KeyError, ValueError: When arrays are missing, or do not fit the rest.
        """
        neurons = tuple(arrays[f"{prefix}neurons.{place}"] for place in range(len(header.layers)))
        _check_places(header.layers)
        if header.rank > _MOST["rank"]:
            raise ValueError(f"expected at most {_MOST['rank']} numbers of a row, found {header.rank}")
        for layer, picked in zip(header.layers, neurons, strict=True):
            most = min(layer.width, _MOST["neurons"])
            if picked.ndim != 1 or picked.dtype != np.int64 or not 0 < len(picked) <= most:
                raise ValueError(f"the neurons of {layer.name!r} are not a list of whole numbers")
            if not ((np.diff(picked) > 0).all() and picked[0] >= 0 and picked[-1] < layer.width):
                raise ValueError(f"the neurons of {layer.name!r} are not neurons of it in rising order")
        ids = arrays[f"{prefix}ids"]
        if ids.ndim != 1 or ids.dtype != np.int64 or (ids < 0).any() or len(ids) > _MOST["tokens"]:
            raise ValueError("the rows of the embedding are not a list of whole numbers")
        if header.tokens and len(header.tokens) != len(ids):
            raise ValueError("there is not one token for each row of the embedding")
        named = header.seed, header.rank, header.family, header.depth, header.layers
        anchors = {place: arrays[f"{prefix}anchors.{place}"] for place in header.anchored}
        for place, anchor in anchors.items():
            if place >= len(neurons) or anchor.ndim != 3 or anchor.dtype != np.float16:
                raise ValueError("the sketch of the victim's neurons is not one of its layers")
            if anchor.shape[::2] != (len(neurons[place]), header.rank) or not np.isfinite(anchor).all():
                raise ValueError("the sketch of the victim's neurons does not have one row for each that is picked")
        return cls(*named, neurons, ids, header.tokens, header.flat, anchors)


class LayerSketchHeader(Document, frozen=True):
    """A :class:`LayerSketch` without its arrays, as it stands in a file."""

    name: str
    block: Count
    kind: LayerKind
    width: Positive
    invariant: bool


class SketchHeader(Document, frozen=True):
    """A :class:`Sketch` without its arrays, as it stands in a file."""

    family: str
    layers: tuple[LayerSketchHeader, ...]
    guessed: bool = False
    notes: Lines = ()
    unseen: Lines = ()


@dataclass(frozen=True, eq=False)
class LayerSketch:
    """Neurons of one layer as short vectors.

    Attributes:
        name: The layer's name in its own model.
        block: Its place among those of its kind.
        kind: What its neurons are.
        width: How many neurons the layer has.
        neurons: ``(rows,)`` int64, which of them are here, in rising order: those that the plan picks, of the victim;
            all, of others.
        raw: ``(rows, views, rank)`` float16 unit vectors: each neuron's rows in the model's own coordinates.
        invariant: The same in coordinates that turn with the residual stream, or, of a classifier, with the columns of
            each matrix in the order of the victim's neurons, ``(rows, views, rank)``; None where there are none.
    """

    name: str
    block: int
    kind: LayerKind
    width: int
    neurons: Array
    raw: Array
    invariant: Array | None = None


@dataclass(frozen=True, eq=False)
class Sketch:
    """What is kept of a model's weights.

    Attributes:
        family: What kind of network it is.
        layers: Its layers, in forward order.
        flat: ``(n,)`` float32, a random linear image of the layers that the plan names, by which differences from a
            common ancestor are compared; None where it was not asked for, or the model's layers have other shapes.
        guessed: See :class:`Roles`.
        notes: What a reader should know of how it was made.
        unseen: What of the model was not looked at, though it may be the victim's: that the rest is another's then
            acquits nobody.
    """

    family: str
    layers: tuple[LayerSketch, ...]
    flat: Array | None = None
    guessed: bool = False
    notes: tuple[str, ...] = field(default=())
    unseen: tuple[str, ...] = field(default=())

    def header(self) -> SketchHeader:
        """All but the arrays."""
        layers = tuple(
            LayerSketchHeader(one.name, one.block, one.kind, one.width, one.invariant is not None)
            for one in self.layers
        )
        return SketchHeader(self.family, layers, self.guessed, self.notes, self.unseen)

    def arrays(self, prefix: str) -> dict[str, Array]:
        """The arrays, by names that begin with ``prefix``."""
        named: dict[str, Any] = {} if self.flat is None else {f"{prefix}flat": self.flat}
        for place, layer in enumerate(self.layers):
            named |= {f"{prefix}{place}.neurons": layer.neurons, f"{prefix}{place}.raw": layer.raw}
            if layer.invariant is not None:
                named[f"{prefix}{place}.invariant"] = layer.invariant
        return named

    @classmethod
    def of_header(cls, header: SketchHeader, arrays: Mapping[str, Array], prefix: str) -> "Sketch":
        """The inverse of :meth:`header` and :meth:`arrays`.

        Raises:
            KeyError, ValueError: When arrays are missing, or do not fit the rest.
        """
        layers = []
        _check_places(header.layers)
        for place, one in enumerate(header.layers):
            names = [f"{prefix}{place}.{part}" for part in ("neurons", "raw", "invariant")]
            neurons, raw = arrays[names[0]], arrays[names[1]]
            invariant = arrays[names[2]] if one.invariant else None
            if neurons.dtype != np.int64 or neurons.ndim != 1 or not 0 < len(neurons) <= one.width:
                raise ValueError(f"the neurons of {one.name!r} are not a list of whole numbers")
            if not ((np.diff(neurons) > 0).all() and neurons[0] >= 0 and neurons[-1] < one.width):
                raise ValueError(f"the neurons of {one.name!r} are not neurons of it in rising order")
            for array in (raw, *([] if invariant is None else [invariant])):
                if array.dtype != np.float16 or array.ndim != 3 or len(array) != len(neurons):
                    raise ValueError(f"the sketch of {one.name!r} does not have one row per neuron")
                if not np.isfinite(array).all():
                    raise ValueError(f"the sketch of {one.name!r} has numbers that are not finite")
            layers.append(LayerSketch(one.name, one.block, one.kind, one.width, neurons, raw, invariant))
        flat = arrays.get(f"{prefix}flat")
        if flat is not None and (flat.dtype != np.float32 or flat.ndim != 1 or not np.isfinite(flat).all()):
            raise ValueError("the image of all weights is not a list of finite float32")
        return cls(header.family, tuple(layers), flat, header.guessed, header.notes, header.unseen)
