"""Make a key: of a scheme, from the owner's model."""

import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

import numpy as np

from deepjudge_core.auditing.owner import Owner, owner_of
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.components.drawing import NONCE
from deepjudge_core.components.registry import Configured
from deepjudge_core.components.schemes import Key, KeyTask, Scheme, expect_key
from deepjudge_core.errors import DeepJudgeError, InputError, ModelError, PluginError, UsageError, one_line
from deepjudge_core.models.asking import ask
from deepjudge_core.models.model import Model
from deepjudge_core.models.prepared import Prepared
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.suites.inputs import Offered
from deepjudge_core.suites.labels import likeliest
from deepjudge_core.suites.ranges import hull
from deepjudge_core.suites.seeds import Arranged, arranged, class_numbers
from deepjudge_core.suites.standardised import brought_back
from deepjudge_core.types import Array
from deepjudge_core.zoo.manifest import Kind, Zoo, ZooModel, is_kept


@dataclass(frozen=True, eq=False)
class Material:
    """What keys are made from, besides the victim.

    Attributes:
        inputs: ``(n, *shape)`` float32 of the victim's task, in its layout.
        labels: ``(n,)`` int64; None where there are none.
        bounds: Least and greatest value of an input, or of each.
        auxiliary: ``(m, *shape)`` inputs of another task, in the victim's layout; None where there are none.
        auxiliary_labels: ``(m,)`` int64; None where there are none.
        references: Models independent of the victim, which may be opened when they are looked at.
        surrogates: Models stolen from it, likewise.
        matrices: Reads the victim's matrices by their places; None where they cannot be read.
    """

    inputs: Array
    labels: Array | None
    bounds: tuple[float, float] | tuple[Array, Array]
    auxiliary: Array | None = None
    auxiliary_labels: Array | None = None
    references: Sequence[Model] = ()
    surrogates: Sequence[Model] = ()
    matrices: Callable[[Sequence[int]], dict[int, Array]] | None = None


def make_key(victim: Model, scheme: Configured[Scheme], material: Material, nonce: bytes | None = None) -> Key:
    """Make a key; equal arguments and nonces give equal keys.

    Args:
        victim: The owner's model.
        scheme: With its options.
        material: What it is made from.
        nonce: 32 bytes that all that is drawn follows from; by default chosen at random.

    Raises:
        InputError, ModelError: When the scheme needs what is not there, with the reason.
        PluginError: When the scheme fails.
        UsageError: For a nonce of another length.
    """
    _check_nonce(nonce)
    _check(victim, scheme.component, material)
    task = KeyTask(victim, nonce=nonce or secrets.token_bytes(NONCE), **vars(material))
    try:
        key = expect_key(scheme.component, scheme.component.make(task, **scheme.options))
    except DeepJudgeError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"the scheme {scheme.name!r} failed: {one_line(error)}") from error
    _check_inputs(key, material)
    return replace(key, references=_digests(material.references), surrogates=_digests(material.surrogates))


class _Later(Sequence[Model]):
    # The models of a zoo, each opened when it is looked at: what a scheme has no use for is not run.

    def __init__(self, openers: Sequence[Callable[[], Model]]) -> None:
        self._openers, self._opened = openers, dict[int, Model]()

    def __len__(self) -> int:
        return len(self._openers)

    @overload
    def __getitem__(self, place: int) -> Model: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Model]: ...
    def __getitem__(self, place: int | slice) -> Model | Sequence[Model]:
        places = range(len(self._openers))[place]
        if isinstance(places, range):
            return [self._at(one) for one in places]
        return self._at(places)

    def _at(self, place: int) -> Model:
        if place not in self._opened:
            self._opened[place] = self._openers[place]()
        return self._opened[place]

    @property
    def looked_at(self) -> Sequence[Model]:
        return [self._opened[place] for place in sorted(self._opened)]


def _digests(models: Sequence[Model]) -> tuple[str, ...]:
    return tuple(model.digest for model in (models.looked_at if isinstance(models, _Later) else models))


def key_of(
    victim: Subject,
    scheme: Configured[Scheme],
    inputs: Offered,
    *,
    auxiliary: Offered | None = None,
    zoo: Zoo | None = None,
    nonce: bytes | None = None,
    preprocessing: Preprocessing | None = None,
    session: Session | None = None,
) -> Key:
    """Open the victim as a suite is made from it, and make a key.

    Args:
        victim: The owner's model.
        scheme: With its options.
        inputs: Of the victim's task; those that a suite is made from have to be in the same range.
        auxiliary: Inputs of another task, in the same range.
        zoo: Whose controls are references and whose stolen models are surrogates.
        nonce: 32 bytes that all that is drawn follows from; by default chosen at random.
        preprocessing: What the victim expects of inputs in 0..1; by default as in
            :func:`~deepjudge_core.auditing.audit.make_suite`.
        session: Where the adapters are, and how files are confined.

    Raises:
        DeepJudgeError: When the victim, the inputs or the zoo cannot be used, or the scheme needs what is not there.
    """
    session = session or Session()
    _check_nonce(nonce)
    _check_wants(
        scheme.component,
        {
            "labels": True,  # if the file has none, they are the victim's own answers
            "auxiliary": auxiliary is not None,
            "references": zoo is not None and bool(zoo.of("control")),
            "surrogates": zoo is not None and bool(zoo.of("stolen")),
        },
    )
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(owner_of(victim, inputs, preprocessing, session))
        given, model = owner.inputs, owner.model
        own = arranged(model, given.x, bounds=given.bounds, layout=given.layout, victim_layout=owner.layout)
        others, known = (None, None) if auxiliary is None else _others(auxiliary, owner)
        if zoo is not None and zoo.victim.digest != model.digest:
            raise ModelError(
                f"{zoo.folder}: expected the zoo of {model.name}, found that of {zoo.victim.path}, which has another "
                "digest",
                code="conflict",
            )
        material = Material(
            own.inputs,
            _labels(owner, own, scheme.component),
            own.bounds,
            others,
            known,
            _opening(zoo, "control", owner, own, session, stack),
            _opening(zoo, "stolen", owner, own, session, stack),
            lambda places: _matrices(victim, places, session),
        )
        return make_key(model, scheme, material, nonce)


def _others(auxiliary: Offered, owner: Owner) -> tuple[Array, Array | None]:
    # Inputs of another task and their labels, as the victim takes them.
    given = owner.inputs
    others = auxiliary.fitted(owner.model.input.with_layout(owner.layout))
    if owner.undone is not None:
        others = brought_back(others, owner.undone)
    x = arranged(
        owner.model,
        others.x,
        bounds=given.bounds,
        layout=others.layout or given.layout,
        victim_layout=owner.layout,
        source="auxiliary inputs",
    )
    y = None if others.y is None or (others.labels < 0).any() else others.labels.astype(np.int64)
    return x.inputs, y


def _labels(owner: Owner, own: Arranged, scheme: Scheme) -> Array | None:
    # No model is run for labels that nobody wants.
    if owner.inputs.y is None and "labels" not in scheme.wants:
        return None
    y = None if owner.inputs.y is None else class_numbers(own.inputs, owner.inputs.y, owner.model)
    if y is not None and y.ndim == 1:
        return y
    answers, _ = ask(owner.model, own.inputs, {})
    return (answers.argmax(axis=1) if y is None else likeliest(y, answers)).astype(np.int64)


def _opening(
    zoo: Zoo | None, kind: Kind, owner: Owner, own: Arranged, session: Session, stack: contextlib.ExitStack
) -> Sequence[Model]:
    # Those of the victim's classes; of others, no label can be compared.
    if zoo is None:
        return ()
    models = (model for model in zoo.of(kind) if model.accuracy is not None)
    return _Later([partial(_open, zoo, model, owner, own, session, stack) for model in models])


def _open(
    zoo: Zoo, entry: ZooModel, owner: Owner, own: Arranged, session: Session, stack: contextlib.ExitStack
) -> Model:
    path, shape = zoo.path(entry), own.inputs.shape[1:]
    if not is_kept(zoo, entry):
        raise ModelError(f"{path}: expected the model as the zoo says that it was made, found another or none")
    expected = replace(owner.model.input, shape=shape)
    model = stack.enter_context(ModelFile(path).opened(expected, session, gradients=True))
    if model.classes != owner.model.classes or not _takes(model, shape):
        raise ModelError(f"{path}: expected a model with the inputs and classes of {owner.model.name}, found others")
    if owner.preprocessing is None:
        return model
    return Prepared.of(model, owner.preprocessing, shape, hull(own.bounds), own.layout)


def _takes(model: Model, shape: tuple[int, ...]) -> bool:
    theirs = model.input.shape
    return len(theirs) == len(shape) and all(one in (None, size) for one, size in zip(theirs, shape, strict=True))


def _matrices(victim: Subject, places: Sequence[int], session: Session) -> dict[int, Array]:
    with victim.sketching(session) as sketcher:
        return sketcher.matrices(places)


_WAYS: Mapping[str, str] = {
    "labels": "inputs with labels",
    "auxiliary": "auxiliary inputs, of another task",
    "references": "a zoo with models independent of the victim",
    "surrogates": "a zoo with models stolen from the victim",
}


def _check_nonce(nonce: bytes | None) -> None:
    if nonce is not None and len(nonce) != NONCE:
        raise UsageError(
            f"expected a nonce of {NONCE} bytes ({2 * NONCE} hex digits), found {len(nonce)} bytes", code="wrong-value"
        )


def _check_wants(scheme: Scheme, held: Mapping[str, bool]) -> None:
    for want in scheme.wants:
        if not held[want]:
            raise InputError(f"{scheme.name}: expected {_WAYS[want]}, found none", code="missing-value")


def _check(victim: Model, scheme: Scheme, material: Material) -> None:
    given = vars(material)
    _check_wants(scheme, {want: given[want] is not None and len(given[want]) > 0 for want in scheme.wants})
    missing = scheme.asks & ~victim.access
    if missing:
        names = " and ".join(str(flag.name).lower() for flag in missing)
        raise ModelError(f"{victim.name}: does not provide {names}, which the scheme {scheme.name} needs")


def _check_inputs(key: Key, material: Material) -> None:
    if key.inputs is None:
        return
    low, high = (np.asarray(side, np.float32) for side in material.bounds)
    if not (np.isfinite(key.inputs).all() and ((low <= key.inputs) & (key.inputs <= high)).all()):
        raise PluginError(
            f"the scheme {key.scheme!r} failed: expected inputs within {low.min():g}..{high.max():g}, found "
            f"{key.inputs.min():g}..{key.inputs.max():g}"
        )
