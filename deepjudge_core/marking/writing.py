"""Embed keys in the owner's model and write it, once what was written is seen to carry them."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepjudge_core.auditing.marked import check_range
from deepjudge_core.auditing.owner import Owner, owner_of
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import LiveModel, ModelFile, Subject
from deepjudge_core.components.opening import open_network
from deepjudge_core.components.schemes import Key, Matches, Reading, Scheme
from deepjudge_core.errors import (
    DeepJudgeError,
    EmbeddingError,
    FileFormatError,
    InputError,
    ModelError,
    UsageError,
    first_line,
)
from deepjudge_core.files import digests
from deepjudge_core.judging.exact import power_of_ten
from deepjudge_core.judging.keys import GREATEST_LOG10_P, LEAST_SHARE, carries
from deepjudge_core.marking.embedding import check_key, embed_keys, read_of
from deepjudge_core.marking.places import saved_matrices
from deepjudge_core.marking.settings import EmbedSettings
from deepjudge_core.models.asking import ask
from deepjudge_core.models.model import Model
from deepjudge_core.models.network import Network
from deepjudge_core.models.prepared import Prepared
from deepjudge_core.models.preprocessing import Prepare, Preprocessing
from deepjudge_core.models.training import accuracy
from deepjudge_core.naming import option
from deepjudge_core.suites.inputs import Offered
from deepjudge_core.suites.ranges import hull
from deepjudge_core.suites.seeds import Arranged, arranged, class_numbers
from deepjudge_core.suites.standardised import brought_back
from deepjudge_core.types import Array

_HELD_OUT = 10  # one in so many rows, for tests where no others are given
_BESIDE = 64  # test inputs that are asked beside a key's


@dataclass(frozen=True, eq=False)
class MarkedModel:
    """A model that carries keys, in a file.

    Attributes:
        path: Of the file.
        digest: SHA-256 of the file, in hex.
        before: Accuracy of the victim on the test data, 0..1.
        after: Accuracy of the marked model, read from its file.
        readings: What each key counts of it, likewise, by what the key is called.
        notes: What a reader should know of data, keys and training.
    """

    path: Path
    digest: str
    before: float
    after: float
    readings: Mapping[str, Reading]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Rows:
    x: Array
    y: Array


def embed(
    victim: Subject,
    keys: Mapping[str, Key],
    training: Offered,
    path: Path,
    *,
    test: Offered | None = None,
    settings: EmbedSettings | None = None,
    preprocessing: Preprocessing | None = None,
    session: Session | None = None,
) -> MarkedModel:
    """Train the victim until it carries keys, and write it as another model.

    What was written is opened as a suspect is, and counts only if it carries each key and is hardly less accurate.

    Args:
        victim: The owner's model, a file or a live one; it is left as it is.
        keys: By what messages call them, such as the paths of their files.
        training: Inputs that it was trained on, with labels.
        path: Of the marked model; without an ending it gets that of its format.
        test: Inputs with labels on which the accuracy is measured; None for every tenth row of the training data, which
            is then not trained on.
        settings: How.
        preprocessing: What the victim expects of inputs in 0..1; by default as in
            :func:`~deepjudge_core.auditing.audit.make_suite`.
        session: Where the components are, and how files are confined.

    Raises:
        EmbeddingError: When a key was not learnt, or the accuracy falls too far; nothing is written.
        DeepJudgeError: When the victim, the keys or the data cannot be used, or nothing can be written.
    """
    settings, session = settings or EmbedSettings(), session or Session()
    if not isinstance(victim, ModelFile | LiveModel):
        raise ModelError(f"{victim.name}: expected a model that can be trained, found stored answers")
    if not keys:
        raise UsageError("expected a key to embed, found none", code="missing-value")
    schemes = {name: session.registry.schemes[key.scheme] for name, key in keys.items()}
    with owner_of(victim, training, preprocessing, session) as owner:
        own, y = _labelled("training data", owner, owner.inputs)
        rows, tests = _divided(_Rows(own.inputs, y), None if test is None else _tests(owner, test))
        digest, outputs = owner.model.digest, owner.model.outputs
    options = dict(victim.options)
    if outputs is not None and outputs.several:
        options["output"] = outputs.place + 1
    source = Path(victim.path) if isinstance(victim, ModelFile) else victim.model
    device = session.device if isinstance(victim, ModelFile) else None
    network = open_network(source, registry=session.registry, expected=owner.inputs.expected, device=device, **options)
    shape = own.inputs.shape[1:]
    for name, key in keys.items():
        check_key(name, key, schemes[name], network, shape)
        check_range(name, key, hull(own.bounds), "the training data")
    target = _target(path, network, source)
    prepare = _prepare(owner, own, victim.name)
    before = accuracy(network, prepare(tests.x), tests.y)
    marked = embed_keys(
        network,
        [(key, schemes[name]) for name, key in keys.items()],
        rows.x,
        rows.y,
        own.bounds,
        np.random.default_rng(settings.seed),
        schedule=settings.schedule,
        prepare=prepare,
        read=saved_matrices(session.registry),
    )
    strangers = [name for name, key in keys.items() if key.made_from != digest]
    notes = [f"{name}: this key was made from another model than {victim.name}" for name in strangers]
    if test is None:
        notes.append(
            f"the accuracy is that on every tenth row of the training data, {len(tests.y)} rows; {victim.name} was "
            f"trained on them, if these are its data, and the marked model was not: give {option('test')} for rows "
            "that neither has seen"
        )
    output = {name: value for name, value in options.items() if name == "output"}

    def check(file: Path) -> MarkedModel:
        saved = ModelFile(file, output, query=victim.query)
        after, readings = _found(saved, keys, schemes, tests, owner, own, session)
        for name, reading in readings.items():
            _check_learnt(name, reading)
        if after < before - settings.cost:
            raise EmbeddingError(
                f"{victim.name}: expected an accuracy of {before - settings.cost:.2%} or more with the keys, found "
                f"{after:.2%} ({before:.2%} without them); nothing was written. Train for more {option('epochs')}, or "
                f"with a lower {option('rate')}, or allow more with {option('cost')}"
            )
        found = digests.of_file(file).digest
        return MarkedModel(target, found, before, after, readings, (*owner.notes, *notes, *marked.notes))

    return _written(marked.network, target, check)


def _labelled(what: str, owner: Owner, inputs: Any) -> tuple[Arranged, Array]:
    # Inputs as the victim takes them, and their classes.
    if inputs.y is None:
        raise InputError(f"{what}: expected labels, by which the network is trained, found none")
    own = arranged(
        owner.model,
        inputs.x,
        bounds=inputs.bounds,
        layout=inputs.layout or owner.inputs.layout,
        victim_layout=owner.layout,
        source=what,
    )
    y = class_numbers(own.inputs, inputs.y, owner.model)
    if y.ndim > 1:
        raise InputError(f"{what}: expected one class for each input, found inputs with several")
    return own, y


def _tests(owner: Owner, offered: Offered) -> _Rows:
    inputs = offered.fitted(owner.model.input.with_layout(owner.layout))
    if owner.undone is not None:
        inputs = brought_back(inputs, owner.undone)
    own, y = _labelled("test data", owner, inputs)
    return _Rows(own.inputs, y)


def _divided(rows: _Rows, tests: _Rows | None) -> tuple[_Rows, _Rows]:
    if tests is not None:
        return rows, tests
    held = np.arange(len(rows.x)) % _HELD_OUT == _HELD_OUT - 1
    if not held.any():
        raise InputError(f"training data: expected at least {_HELD_OUT} rows, found {len(rows.x)}")
    return _Rows(rows.x[~held], rows.y[~held]), _Rows(rows.x[held], rows.y[held])


def _prepare(owner: Owner, own: Arranged, name: str) -> Prepare:
    if owner.preprocessing is None:
        return lambda x: x
    return owner.preprocessing.preparing(name, own.inputs.shape[1:], hull(own.bounds), own.layout)


def _target(path: Path, network: Network, source: Any) -> Path:
    suffix = network.architecture.suffix
    target = path if path.suffix else path.with_name(path.name + suffix)
    if not target.name.endswith(suffix):
        raise UsageError(
            f"{path}: expected a name that ends in {suffix}, the format in which this network is saved",
            code="wrong-value",
        )
    if isinstance(source, Path) and target.resolve() == source.resolve():
        raise UsageError(f"{target}: expected another file to write to, found the victim", code="would-overwrite")
    return target


def _found(
    saved: ModelFile,
    keys: Mapping[str, Key],
    schemes: Mapping[str, Scheme],
    tests: _Rows,
    owner: Owner,
    own: Arranged,
    session: Session,
) -> tuple[float, dict[str, Reading]]:
    # The accuracy of the file, and what each key counts of it.
    places = sorted({place for key in keys.values() for place in key.matrices})
    matrices: Mapping[int, Array] = {}
    if places:
        with saved.sketching(session) as sketcher:
            matrices = sketcher.matrices(places)
    with saved.opened(owner.model.input, session) as opened:
        model: Model = opened
        if owner.preprocessing is not None:
            model = Prepared.of(opened, owner.preprocessing, own.inputs.shape[1:], hull(own.bounds), own.layout)
        answers, _ = ask(model, tests.x, {})
        readings = {
            name: read_of(name, key, schemes[name], model, tests.x[:_BESIDE], lambda x: x, matrices)
            for name, key in keys.items()
        }
    return float((answers.argmax(axis=1) == tests.y).mean()), readings


def _check_learnt(name: str, reading: Reading) -> None:
    if carries(reading):
        return
    chance = "" if reading.log10_p is None else power_of_ten(reading.log10_p)
    if isinstance(reading, Matches):
        expected = f"expected the network to learn {LEAST_SHARE:.0%} of the trials, and more than by chance"
        found = f"found {reading.found} of {reading.of}"
        found += f", which a model without the key matches with a chance of {chance}" if chance else ""
    else:
        expected = (
            "expected the network to do so much better on the rows that the key chose that chance gives it in at most "
            f"one of {10**-GREATEST_LOG10_P:,.0f} cases"
        )
        found = (
            f"found that {reading.found} of {reading.of} rows that it does better on were chosen, a chance of {chance}"
        )
    raise EmbeddingError(
        f"{name}: {expected}, {found}; nothing was written. Train for more {option('epochs')}, or with a higher "
        f"{option('rate')}"
    )


def _written(network: Network, path: Path, check: Callable[[Path], MarkedModel]) -> MarkedModel:
    # Under a temporary name first, with the ending by which its format is known: what has its own name is whole.
    temporary = path.with_name(f".{secrets.token_hex(4)}{path.name}")
    try:
        network.save(temporary)
        marked = check(temporary)
        temporary.replace(path)
    except DeepJudgeError:
        raise
    except Exception as error:  # each framework says in its own way that a disk is full
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise FileFormatError(f"{path}: cannot be written: {reason}", code="cannot-write") from error
    finally:
        temporary.unlink(missing_ok=True)
    return replace(marked, path=path)
