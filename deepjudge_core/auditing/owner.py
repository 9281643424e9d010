"""The owner's model as suites and keys are made from it: opened, behind its preprocessing, with its task's inputs."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.errors import ModelError
from deepjudge_core.models.asking import ask
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.layouts import arrangement
from deepjudge_core.models.model import Model, note_of_fixed
from deepjudge_core.models.prepared import Prepared
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.naming import option
from deepjudge_core.suites.inputs import Inputs, Offered, fitted
from deepjudge_core.suites.inputs.pictures import Pictures
from deepjudge_core.suites.labels import has_several
from deepjudge_core.suites.outputs import output_by_labels
from deepjudge_core.suites.ranges import hull
from deepjudge_core.suites.standardised import plain_inputs
from deepjudge_core.types import Layout

_SIZES = ("unusable-model", "cannot-open", "cannot-answer")  # what a wrong size may lead to
_FEW = 64  # inputs that show what kind of probabilities a victim gives


@dataclass(frozen=True, eq=False)
class Owner:
    """The victim and its inputs, in the range in which suites keep them.

    Attributes:
        model: The victim, with the output that answers the labels, behind its preprocessing if it has any.
        inputs: As the model takes them, but for where channels are.
        preprocessing: What the victim expects of inputs in 0..1; None for nothing.
        undone: What the inputs were brought back from; None if they are as they were offered.
        layout: Where the channels of its inputs are, if the model does not say and the user does.
        notes: What a reader should know of both.
    """

    model: Model
    inputs: Inputs
    preprocessing: Preprocessing | None
    undone: Preprocessing | None
    layout: Layout | None
    notes: tuple[str, ...]


@contextlib.contextmanager
def owner_of(
    victim: Subject, offered: Offered, preprocessing: Preprocessing | None, session: Session
) -> Iterator[Owner]:
    """Open the victim for inputs, for as long as the context is open.

    Args:
        victim: The owner's model.
        offered: The inputs. Images that were standardised are brought back to 0..1.
        preprocessing: What the victim expects of inputs in 0..1; by default what its subject's query says, or how the
            inputs were standardised.
        session: Where the adapters are, and how a file is confined.

    Raises:
        DeepJudgeError: When the victim or the inputs cannot be used.
    """
    layout, said = victim.query.layout, preprocessing or victim.query.preprocessing
    with contextlib.ExitStack() as stack:
        opened = _opened(victim, offered, session, stack)
        inputs, preprocessing, notes = plain_inputs(fitted(offered, opened, layout), said)
        owner = opened
        if preprocessing is not None:
            owner = Prepared.of(opened, preprocessing, inputs.x.shape[1:], hull(inputs.bounds), inputs.layout)
        note = None
        if inputs.y is not None:
            owner, note = output_by_labels(owner, inputs.x, inputs.y, layout=inputs.layout, model_layout=layout)
        elif owner.outputs and owner.outputs.several:
            way_out = (
                ""
                if owner.outputs.named
                else (
                    ", because no labels tell which output holds the scores; if it is another one, name it "
                    f"with {option('output')}"
                )
            )
            note = f"the victim's scores are {owner.outputs}{way_out}"
        owner, reading_note = _read(owner, inputs, layout)
        notes = (*inputs.notes, *notes, *note_of_fixed(opened), *filter(None, [note, reading_note]))
        yield Owner(owner, inputs, preprocessing, None if said else preprocessing, layout, notes)


def _opened(victim: Subject, offered: Offered, session: Session, stack: contextlib.ExitStack) -> Model:
    try:
        return stack.enter_context(victim.opened(offered.expected, session, gradients=True))
    except ModelError as error:
        failed = _with_size(error, offered)
        if error.code not in _SIZES or not isinstance(offered, Pictures) or offered.usual[1] != 1:
            raise failed from None
    # A model that does not say what it takes, and grey pictures: it may take colours.
    try:
        spec = InputSpec((*offered.usual[0], 3), layout="channels_last")
        return stack.enter_context(victim.opened(spec, session, gradients=True))
    except ModelError:
        raise failed from None


def _with_size(error: ModelError, offered: Offered) -> ModelError:
    # A model that does not say what it takes is opened for pictures of the size that they have.
    if error.code not in _SIZES or not isinstance(offered, Pictures) or offered.resizing.size is not None:
        return error
    shape = "x".join(map(str, offered.expected.shape))
    told = ModelError(
        f"{error}; it was opened for pictures of {shape}: if it takes another size, name it with "
        f"{option('resize', 'crop:HxW')}"
    )
    told.code = error.code
    return told


def _read(victim: Model, inputs: Inputs, layout: Layout | None) -> tuple[Model, str | None]:
    # A victim that gives scores and does not say of what, by the labels: inputs of several classes are for sigmoids.
    if inputs.y is None or not has_several(inputs.y):
        return victim, None
    arrange = arrangement(
        victim.name, inputs.x.shape[1:], victim.input.with_layout(layout or inputs.layout), inputs.layout
    )
    ask(victim, np.ascontiguousarray(arrange(inputs.x[:_FEW])), {})  # by which it may show what it gives
    if victim.independent is not None:
        return victim, None
    return victim.reading(True), "inputs have several classes, so the victim's scores are read as one sigmoid per class"
