"""Cases that an interface of pictures takes unchanged: whole numbers of 8 bits, and what JPEG leaves of them.

A case that is changed on its way is another one, of which nobody knows whether it still misleads the victim. So cases
are made what an interface makes of them before the victim answers, and those are kept that still mean what they should.
"""

from dataclasses import dataclass, replace

import numpy as np

from deepjudge_core.components.kinds import Generator
from deepjudge_core.components.values import Cases, Seeds, Task
from deepjudge_core.errors import InputError, ModelError, UsageError
from deepjudge_core.models.model import Model
from deepjudge_core.models.pictures import Pictures, channel_axis
from deepjudge_core.suites.ranges import hull, is_one
from deepjudge_core.types import Array, Layout

_ROWS = 4096  # training inputs of which neurons are looked at together


@dataclass(frozen=True)
class Realising:
    """What cases become on their way.

    Attributes:
        pictures: How they are sent.
        bounds: What is black, and what is white.
        layout: Where the channels are, if the shape does not tell.
    """

    pictures: Pictures
    bounds: tuple[float, float]
    layout: Layout | None

    @classmethod
    def of(cls, text: str, victim: Model, seeds: Seeds) -> "Realising":
        """Look whether the inputs can be pictures.

        Args:
            text: As :meth:`Pictures.parse` has it.
            victim: The victim.
            seeds: Where cases start.

        Raises:
            UsageError, InputError: When they cannot.
        """
        pictures, layout = Pictures.parse(text), seeds.layout or victim.input.layout
        if not is_one(seeds.bounds):
            raise UsageError(
                "pictures: expected one range for all features, found ranges of their own", code="conflict"
            )
        try:
            channel_axis(seeds.inputs.shape[1:], layout)
        except ModelError as error:
            raise InputError(f"pictures: {str(error).removesuffix(f' ({error.code})')}") from None
        return cls(pictures, hull(seeds.bounds), layout)

    def of_seeds(self, victim: Model, seeds: Seeds) -> tuple[Seeds, str]:
        """The seeds as they are sent, those that the victim still classifies correctly; and what a reader should know.

        Raises:
            InputError: When it classifies none correctly.
        """
        inputs, stays = self.pictures.settled(seeds.inputs, self.bounds, self.layout)
        keep = stays & (victim.predict(inputs).argmax(axis=1) == seeds.labels)
        if not keep.any():
            raise InputError(
                f"pictures: expected seeds that the victim classifies correctly as {self.pictures}, found none"
            )
        note = f"all cases are {self.pictures}; {int(keep.sum())} of {len(keep)} seeds are classified correctly so"
        inputs, labels, indices = (part[keep] for part in (inputs, seeds.labels, seeds.indices))
        return replace(seeds, inputs=inputs, labels=labels, indices=indices), note

    def of_cases(self, task: Task, cases: Cases, keep: Array, generator: Generator) -> tuple[Cases, Array, str]:
        """Cases as they are sent, and which of them still mean what they should, if the victim misclassifies them.

        Args:
            task: What they were made from.
            cases: The cases.
            keep: Which of them were to be kept.
            generator: What made them.

        Returns:
            The cases; ``(n,)`` bool; and what a reader should know, with a place for the number that is kept.
        """
        inputs, stays = self.pictures.settled(cases.inputs, self.bounds, self.layout)
        sent = replace(cases, inputs=inputs)
        of = f"of {int(keep.sum())} cases"
        if generator.makes != "corners":
            return sent, stays & keep, f"as {self.pictures}, {{}} {of} still mislead the victim"
        stays &= _beyond(task, sent)
        reached = {
            (int(layer), int(neuron)) for layer, neuron in zip(cases.layers[stays], cases.neurons[stays], strict=True)
        }
        lost = {(int(layer), int(neuron)) for layer, neuron in zip(cases.layers, cases.neurons, strict=True)} - reached
        sent = replace(sent, unreached=tuple(sorted({*cases.unreached, *lost})))
        return sent, stays, f"as {self.pictures}, {{}} {of} still push their neuron beyond its outputs on other inputs"


def _beyond(task: Task, cases: Cases) -> Array:
    # Which corners push their neuron further than any training input does.
    stays = np.zeros(len(cases.inputs), bool)
    for place, layer in enumerate(task.layers):
        rows = np.flatnonzero(cases.layers == place)
        if not len(rows):
            continue
        starts = range(0, len(task.training_inputs), _ROWS)
        usual = (task.victim.activations(task.training_inputs[at : at + _ROWS], [layer])[layer] for at in starts)
        greatest = np.max([one.max(axis=0) for one in usual], axis=0)
        outputs = task.victim.activations(cases.inputs[rows], [layer])[layer]
        neurons = cases.neurons[rows]
        stays[rows] = outputs[np.arange(len(rows)), neurons] > greatest[neurons]
    return stays
