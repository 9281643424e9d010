"""A graph that gives any of its tensors, as the core sees it. Which library runs it is the graph's own affair."""

import abc
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import prefixed
from deepjudge_core.models.batched import BatchedModel
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access
from deepjudge_core.models.outputs import Choice, Output, Outputs
from deepjudge_core.models.places import find_places, reduce, repeats, spread
from deepjudge_core.models.taps import Op, Place, Tap, find_taps, input_layout
from deepjudge_core.types import Array

# A model is tried with two numbers of rows: they tell which axes are those of the rows. A graph that was traced for
# one row and says otherwise takes only that.
_ROWS = ((2, 3), (1,))

# Lengths that free axes (time, height, width) are tried with, where nobody says what the inputs are.
_LENGTHS = (32, 224)


class Graph(abc.ABC):
    """Operations from one input to whichever tensors are asked for.

    Attributes:
        shape: Of the input, the rows counted; None for axes of any length.
        dtype: numpy name of the numbers that the input is made of.
        outputs: Names of its outputs.
        device: What runs it, as its library calls it.
        hidden: Why its layers cannot be seen; None where they can.
    """

    shape: tuple[int | None, ...]
    dtype: str
    outputs: tuple[str, ...]
    device: str
    hidden: str | None = None

    @abc.abstractmethod
    def run(self, names: Sequence[str], x: Array) -> list[Array]:
        """The tensors of these names for an input.

        Raises:
            ModelError: When it cannot be run; without the model's name in front.
        """

    def reordered(self, name: str, x: Array, *, tensor: str, axis: int, order: Array) -> Array | None:
        """A tensor for an input, where another one has its places along an axis in another order.

        Args:
            name: Of the tensor that is asked for.
            x: The input.
            tensor: The other one.
            axis: Its axis.
            order: ``(places,)`` int64.

        Returns:
            The tensor; None where its library cannot do that.

        Raises:
            ModelError: As :meth:`run`.
        """
        return None

    @abc.abstractmethod
    def operations(self, x: Array) -> list[Op]:
        """What is computed from the input, in forward order.

        Args:
            x: An input that it takes, for what only running it tells.
        """


class GraphModel(BatchedModel):
    """A model that is a graph, without gradients: no library here has them."""

    def __init__(
        self,
        graph: Graph,
        *,
        name: str,
        framework: str,
        digest: str,
        batch_size: int | None = None,
        output: Choice = None,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        """Run the graph on a few random inputs to see what it takes and gives.

        Args:
            graph: The graph.
            name: What to call it.
            framework: Name of the adapter.
            digest: SHA-256 of its files, in hex.
            batch_size: Rows in a batch.
            output: The one that holds the scores, by its name or its number.
            input_shape: Of the inputs that it will be given, for axes of any length.

        Raises:
            ModelError: When it is no classifier.
        """
        self.name, self._graph = name, graph
        outputs, self._samples = self._find_outputs(output, input_shape)
        self._output = outputs.all[outputs.place].name
        with prefixed(name):
            ops = graph.operations(self._samples[0])
        taps = find_taps(ops, self._output)
        self._places = self._find_places(taps.taps)
        super().__init__(
            name=name,
            framework=framework,
            digest=digest,
            access=Access.BLACK_BOX if graph.hidden else Access.WHITE_BOX,
            input=InputSpec(graph.shape[1:], graph.dtype, input_layout(ops)),
            layers={tap: place.neurons for tap, place in self._places.items()},
            scores=taps.scores,
            batch_size=batch_size,
            fixed_batch=len(self._samples[0]) if len(self._samples) == 1 else None,
            outputs=outputs,
        )
        self.device, self.unseen = graph.device, graph.hidden
        self._input_shape = input_shape

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        """See :class:`BatchedModel`."""
        if layers is None:
            return self._run([self._output], x)
        tensors = self._run(layers, x)
        return [reduce(t, self._places[layer], len(x)) for layer, t in zip(layers, tensors, strict=True)]

    def mixed(self, x: Array, layer: str, order: Array) -> Array | None:
        """See :class:`BatchedModel`."""
        place = self._places[layer]
        with prefixed(self.name):
            scores = self._graph.reordered(
                self.logits, x, tensor=layer, axis=place.rows, order=spread(order, self._times[layer])
            )
        return None if scores is None else np.asarray(reduce(scores, self._places[self.logits], len(x)))

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        """Not possible.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            f"{self.name}: no gradients: {self._graph.device} provides none; as a victim, use the "
            "model that this file was made from"
        )

    def by_output(self, place: int) -> "GraphModel":
        """See :class:`~deepjudge_core.models.batched.BatchedModel`."""
        return GraphModel(
            self._graph,
            name=self.name,
            framework=self.framework,
            digest=self.digest,
            batch_size=self._batch_size if self.fixed_batch is None else None,
            output=place + 1,
            input_shape=self._input_shape,
        )

    def _find_outputs(self, choice: Choice, shape: tuple[int, ...] | None) -> tuple[Outputs, list[Array]]:
        # All outputs, and inputs that the model takes, each of another number of rows.
        graph = self._graph
        if len(graph.shape) < 2:
            raise ModelError(
                f"{self.name}: expected an input (n, ...), found one with {len(graph.shape)} axes; convert "
                "it with a batch axis"
            )
        if not graph.outputs:
            raise ModelError(
                f"{self.name}: expected an output (n, classes), found none; convert it with the scores as an output"
            )
        rng = np.random.default_rng(0)
        problems = []
        for rows, axes in itertools.product(*self._trials(shape)):
            samples = [rng.random((n, *axes)).astype(graph.dtype) for n in rows]
            try:
                results = zip(*(self._run(graph.outputs, x) for x in samples), strict=True)
                outputs = [Output.of_answers(*one, rows) for one in zip(graph.outputs, results, strict=True)]
                with prefixed(self.name):
                    return Outputs.of(outputs, choice), samples
            except ModelError as error:
                problems.append(error)
        raise problems[0]

    def _trials(self, shape: tuple[int, ...] | None) -> tuple[list[tuple[int, ...]], list[list[int]]]:
        # Numbers of rows, and shapes of a row, that are tried.
        rows, *axes = self._graph.shape
        numbers: list[tuple[int, ...]] = [(rows,)] if rows else list(_ROWS)
        if None not in axes:
            return numbers, [[axis or 0 for axis in axes]]
        if shape is None:
            return numbers, [[axis or length for axis in axes] for length in _LENGTHS]
        if len(shape) != len(axes) or any(own not in (None, size) for own, size in zip(axes, shape, strict=True)):
            expected = InputSpec(tuple(axes))
            raise ModelError(f"{self.name}: expected inputs of shape {expected}, found {InputSpec(shape)}")
        return numbers, [list(shape)]

    def _find_places(self, taps: Sequence[Tap]) -> dict[str, Place]:
        rows, names = [len(x) for x in self._samples], [tap.name for tap in taps]
        of_samples = [list(map(np.shape, self._run(names, x))) for x in self._samples]
        shapes = list(zip(*of_samples, strict=True))
        places = find_places(taps, shapes, self._shapes_for, rows, self.name)
        self._times = repeats(places, dict(zip(names, of_samples[0], strict=True)), rows[0])
        return places

    def _shapes_for(self, name: str) -> list[tuple[int, ...]]:
        return [np.shape(self._run([name], x)[0]) for x in self._samples]

    def _run(self, names: Sequence[str], x: Array) -> list[Array]:
        with prefixed(self.name):
            return self._graph.run(names, x)
