"""A model behind an API, as the core sees it: it answers, and gives neither layers nor gradients."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from msgspec import UNSET

from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import prefixed
from deepjudge_core.models.gateway import Gateway, Ledger, Reduction, digits_of
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access, Cotangent, Model
from deepjudge_core.models.pictures import channel_axis
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.models.scores import sigmoid, softmax
from deepjudge_core.types import Array
from deepjudge_http import secrets
from deepjudge_http.answers import BadAnswerError, Shown
from deepjudge_http.description import Description, of_url, read_with_digest
from deepjudge_http.protocols import PROTOCOLS, Facts, Protocol, as_rows, count_of
from deepjudge_http.store import Store, usual_folder
from deepjudge_http.transport import Limits, Transport, sha256

_BAD = "bad-answer"
_WHITE = 255.0
_ROUNDING = 1e-6  # of scores beside 0..1
_OFF = 1e-2  # of a sum of probabilities, beside what rounding explains
_GREY = 0.5  # of an input that is asked to see how many classes there are


def open_http(source: Any, *, name: str, budget: int | None, expected: InputSpec | None) -> "HttpModel":
    """Open a model behind an API: read the description, and ask what the protocol tells without an input.

    Args:
        source: The path of a description, or a URL.
        name: What messages call it.
        budget: Inputs that it may be asked in all, at most; that of the description by default.
        expected: The inputs that it will be given.

    Raises:
        ModelError: When the description is wrong, or nobody answers.
    """
    files: Mapping[str, str] = {}
    if isinstance(source, Path):
        described, files = read_with_digest(source)
    else:
        described = of_url(str(source))
    return HttpModel(described, files, name=name, budget=budget, expected=expected)


class ApiGateway(Gateway):
    """Asks each input once, keeps what was answered, and counts.

    Args:
        described: The description.
        protocol: How it is asked.
        store: Where answers are kept.
        name: The model's, for messages.
        budget: Inputs that it may be asked in all; None for any number.
    """

    def __init__(
        self, described: Description, protocol: Protocol, store: Store, *, name: str, budget: int | None
    ) -> None:
        self._described, self._protocol, self._store, self._name, self._budget = (
            described,
            protocol,
            store,
            name,
            budget,
        )
        self._dtype, self._rows, self._fixed, self._repeats = "float32", described.rows, False, False
        self._last = 0
        self._turns: dict[bytes, int] = {}
        self._used: set[tuple[bytes, int]] = set()
        self._requests: set[int] = set()
        self._counts: set[int] = set()  # of the scores that an answer had
        self._digits: int | None = 0
        self._kind: str | None = described.gives or None

    @property
    def gives_labels(self) -> bool:
        """Whether its answers are labels alone, as far as they show."""
        return self._kind == "labels"

    def learn(self, facts: Facts, expects: Preprocessing | None) -> None:
        """Take what the API says of itself, and what it expects of inputs in 0..1."""
        self._dtype, self.expects = facts.dtype, expects
        if facts.rows:
            self._rows, self._fixed = facts.rows, True

    def close(self) -> None:
        """See the base class."""
        self._protocol.close()
        self._store.close()

    def record(self, content: bytes, answer: bytes | None, status: int) -> None:
        """Write a request into the ledger."""
        self._last = self._store.add_request(sha256(content), None if answer is None else sha256(answer), status)
        self._requests.add(self._last)

    def realised(self, x: Array) -> Array:
        """See the base class."""
        if self._described.encodes != "array":
            return self._protocol.pictures.kept(x, self._protocol.layout)
        if np.dtype(self._dtype).kind not in "iu":
            return x
        limits = np.iinfo(self._dtype)
        whole: Array = np.clip(np.rint(x), limits.min, limits.max)
        return whole

    def reduction(self) -> Reduction:
        """See the base class."""
        if self._kind != "probabilities":
            return Reduction()
        classes = self._protocol.reader.classes
        [*counts] = self._counts
        top = counts[0] if counts and counts[0] != classes else None
        stated = None if self._described.digits is UNSET else self._described.digits
        return Reduction(top, min((one for one in (self._digits, stated) if one is not None), default=None))

    def stated(self) -> Reduction | None:
        """See the base class."""
        top, digits = (None if one is UNSET else one for one in (self._described.top, self._described.digits))
        return Reduction(top, digits) or None

    @contextlib.contextmanager
    def repeating(self) -> Iterator[None]:
        """See the base class."""
        self._repeats, before = True, self._repeats
        try:
            yield
        finally:
            self._repeats = before

    def afford(self, queries: int) -> None:
        """See the base class."""
        if self._budget is not None and len(self._used) + queries > self._budget:
            raise ModelError(
                f"{self._name}: expected a budget of at least {len(self._used) + queries} queries, with some cases "
                f"asked again, found {self._budget}: nothing was asked. Raise the budget, make a smaller suite, or ask "
                "case by case",
                code="over-budget",
            )

    def ledger(self) -> Ledger:
        """See the base class."""
        return self._store.ledger(self._requests)

    def scores(self, x: Array) -> Array:
        """Probabilities ``(n, classes)`` float32 of inputs ``(n, *shape)``; of labels alone 1 and 0."""
        sent = self.realised(np.asarray(x, np.float32)).astype(self._dtype)
        shown = self._answers(sent)
        try:
            return self._read(shown)
        except BadAnswerError as error:
            raise named(self._name, error) from None

    def classes_shown(self, x: Array) -> int:
        """How many scores the answer to one input has.

        Raises:
            ModelError: When it has names or labels, which do not tell.
        """
        [shown] = self._answers(self.realised(np.asarray(x, np.float32)).astype(self._dtype))
        if shown.scores is None:
            raise ModelError(
                f"{self._name}: expected classes in the description, because it answers with labels", code="cannot-open"
            )
        return max(len(shown.scores), 2)

    def _answers(self, sent: Array) -> list[Shown]:
        digests = [hashlib.sha256(repr((one.dtype.str, one.shape)).encode() + one.tobytes()).digest() for one in sent]
        keys = [(digest, self._turn(digest)) for digest in digests]
        found: dict[tuple[bytes, int], Shown] = {}
        missing: dict[tuple[bytes, int], int] = {}
        for place, key in enumerate(keys):
            if key in found or key in missing:
                continue
            known = self._store.find(*key)
            if known is None:
                missing[key] = place
            else:
                found[key] = known[0]
                self._requests.add(known[1])
                self._used.add(key)
        places = list(missing.items())
        for start in range(0, len(places), self._rows):
            part = places[start : start + self._rows]
            answers = self._ask(sent[[place for _, place in part]], [key for key, _ in part])
            found |= dict(zip((key for key, _ in part), answers, strict=True))
        return [found[key] for key in keys]

    def _turn(self, digest: bytes) -> int:
        if self._repeats:
            self._turns[digest] = self._turns.get(digest, 0) + 1
            return self._turns[digest]
        return 0

    def _ask(self, x: Array, keys: Sequence[tuple[bytes, int]]) -> list[Shown]:
        count = len(keys)
        if self._budget is not None and len(self._used) + count > self._budget:
            raise ModelError(
                f"{self._name}: the budget of {self._budget} queries is spent; its answers are kept, so a greater "
                "budget goes on from there",
                code="over-budget",
            )
        fixed = self._rows if self._fixed else count
        whole = np.concatenate([x, np.repeat(x[-1:], fixed - count, axis=0)]) if fixed > count else x
        try:
            answers = self._protocol.ask(whole, self.record)[:count]
            if len(answers) < count:
                raise BadAnswerError(f"expected answers to {count} inputs, found {len(answers)}")
            answers = [self._as_stated(one) for one in answers]
        except BadAnswerError as error:
            raise named(self._name, error) from None
        rows = [(digest, turn, one) for (digest, turn), one in zip(keys, answers, strict=True)]
        self._store.add_answers(self._last, rows, self._described.price)
        self._used |= set(keys)
        return answers

    def _as_stated(self, shown: Shown) -> Shown:
        if shown.scores is None:
            return shown
        if self._described.gives == "labels":
            return Shown(None, int(np.nanargmax(shown.scores)))
        top = self._described.top
        given = int((~np.isnan(shown.scores)).sum())
        if not top or given == top or (given < len(shown.scores) and given != top):
            return shown
        # All the others are given as 0.
        order = np.argsort(-shown.scores, kind="stable")
        if shown.scores[order[top:]].any():
            raise BadAnswerError(f"expected {top} scores, as the description says, found more")
        scores = shown.scores.copy()
        scores[order[top:]] = np.nan
        return Shown(scores)

    def _read(self, shown: list[Shown]) -> Array:
        classes = self._protocol.reader.classes or 2
        if all(one.scores is None for one in shown):
            self._expect("labels")
            return as_rows(shown, classes).astype(np.float32)
        if any(one.scores is None for one in shown):
            raise BadAnswerError("expected scores in every answer, found some with a label alone")
        widths = {len(one.scores) for one in shown if one.scores is not None}
        if widths == {1}:
            return self._of_one(np.array([one.scores for one in shown], np.float64))
        if widths != {classes}:
            raise BadAnswerError(f"expected {classes} scores for each input, found {max(widths)}")
        rows = as_rows(shown, classes)
        self._expect(self._kind or _kind_of(rows))
        if self._kind == "logits":
            return softmax(self._whole(rows))
        if self._kind == "log-probabilities":
            return softmax(self._whole(rows).clip(-700))
        return self._of_probabilities(rows)

    def _whole(self, rows: Array) -> Array:
        if np.isnan(rows).any():
            raise BadAnswerError("expected a score for every class, because they are no probabilities, found only some")
        return rows

    def _expect(self, kind: str) -> None:
        if self._kind not in (None, kind):
            raise BadAnswerError(f"expected {self._kind}, found {kind}")
        self._kind = kind

    def _of_one(self, values: Array) -> Array:
        if self._kind not in ("probabilities", "logits"):
            raise BadAnswerError(
                "expected what its scores are, because it gives one number for each input: state gives as "
                "probabilities or logits"
            )
        second = values if self._kind == "probabilities" else sigmoid(values).astype(np.float64)
        if second.min() < -_ROUNDING or second.max() > 1 + _ROUNDING:
            raise BadAnswerError("expected probabilities in 0..1, found other numbers")
        self._see(np.concatenate([1 - second, second], axis=1))
        return np.concatenate([1 - second, second], axis=1).clip(0, 1).astype(np.float32)

    def _of_probabilities(self, rows: Array) -> Array:
        self._see(rows)
        if len(self._counts) > 1:
            raise BadAnswerError(
                f"expected as many scores in every answer, found {min(self._counts)} and {max(self._counts)}: a "
                "threshold cuts them. State gives as labels"
            )
        reduction, classes = self.reduction(), rows.shape[1]
        rounding = 0.0 if reduction.digits is None else 0.5 * 10.0**-reduction.digits
        given = reduction.top or classes
        sums, allowed = np.nansum(rows, axis=1), max(_OFF, given * rounding * 1.001)
        least, greatest = np.nanmin(rows), np.nanmax(rows)
        if least < -_ROUNDING or greatest > 1 + _ROUNDING or sums.max() > 1 + allowed:
            raise BadAnswerError(f"expected probabilities, found numbers in {least:.4g}..{greatest:.4g}")
        if reduction.top is None and sums.min() < 1 - allowed:
            raise BadAnswerError(
                f"expected probabilities that sum to 1, found a sum of {sums.min():.4g}; if it gives only the "
                "greatest, state how many as top"
            )
        return reduction.completed(rows.clip(0, 1))

    def _see(self, rows: Array) -> None:
        given = ~np.isnan(rows)
        self._counts |= set(given.sum(axis=1).tolist())
        found = digits_of(rows[given])
        self._digits = None if found is None or self._digits is None else max(self._digits, found)


class HttpModel(Model):
    """A model behind an API.

    Args:
        described: Where it answers, and how it is asked.
        files: SHA-256 of the description's file; empty of a URL.
        name: What messages call it.
        budget: Inputs that it may be asked in all, at most; that of the description by default.
        expected: The inputs that it will be given.
    """

    framework = "http"
    unseen = "it answers elsewhere and shows its answers alone"
    independent = False

    def __init__(
        self,
        described: Description,
        files: Mapping[str, str],
        *,
        name: str,
        budget: int | None = None,
        expected: InputSpec | None = None,
    ) -> None:
        headers, redactor = _headers(described, name)
        limits = Limits(described.timeout, described.retries, described.rate or None)
        protocol = PROTOCOLS[described.asks_by](described, Transport(name, headers, redactor, limits))
        store = Store(name, _place(described))
        self.name, self.files = name, dict(files)
        self.digest = next(iter(files.values()), "") or described.identity
        self._gateway = self.gateway = ApiGateway(
            described, protocol, store, name=name, budget=budget or described.budget or None
        )
        try:
            self._look(described, protocol, expected)
        except BaseException as error:
            self._gateway.close()
            if isinstance(error, BadAnswerError):
                raise named(name, error) from None
            raise
        self.layers = {"scores": self.classes}
        self.notes = (f"it answers at {_address(described)}, and what answers there may change",)

    def _look(self, described: Description, protocol: Protocol, expected: InputSpec | None) -> None:
        # What it takes and gives, as it says itself, or its answer to one input shows.
        facts, name = protocol.facts(self._gateway.record), self.name
        dtype = "uint8" if described.encodes != "array" else facts.dtype
        usual = Preprocessing(_WHITE) if dtype == "uint8" else None
        self._gateway.learn(replace(facts, dtype=dtype), described.prepared or usual)
        shape = described.shape or facts.shape or (expected.shape if expected else None)
        if shape is None:
            raise ModelError(
                f"{name}: expected the shape of an input, found none; state it as shape", code="cannot-open"
            )
        layout = described.layout or (expected.layout if expected and expected.shape == shape else None)
        self.input, protocol.layout = InputSpec(tuple(shape), dtype, layout), layout
        if described.encodes != "array":
            with prefixed(name):
                channel_axis(self._blank().shape[1:], layout)
        self.classes = count_of(described) or facts.classes or self._gateway.classes_shown(self._blank())
        protocol.reader = replace(protocol.reader, classes=self.classes)

    @property
    def access(self) -> Access:  # type: ignore[override]  # its first answers tell
        """See :class:`Model`."""
        return Access.LABELS if self._gateway.gives_labels else Access.BLACK_BOX

    def predict(self, x: Array) -> Array:
        """See :class:`Model`."""
        return self._gateway.scores(x)

    def activations(self, x: Array, layers: Sequence[str]) -> dict[str, Array]:
        """See :class:`Model`."""
        if layers:
            raise ModelError(f"{self.name}: there is no layer {layers[0]!r}; {self.unseen}")
        return {}

    def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
        """See :class:`Model`."""
        raise ModelError(f"{self.name}: does not give gradients; {self.unseen}")

    def _blank(self) -> Array:
        # A grey input, which is asked where nothing else tells how many classes there are.
        shape = tuple(axis or 1 for axis in self.input.shape)
        grey = _WHITE * _GREY if np.dtype(self.input.dtype).kind in "iu" else _GREY
        return np.full((1, *shape), grey, np.float32)


def named(name: str, error: BadAnswerError) -> ModelError:
    """An error of an answer, with the model's name."""
    text = str(error).removesuffix(f" ({_BAD})")
    return ModelError(f"{name}: {text}", code=_BAD)


def _headers(described: Description, name: str) -> tuple[dict[str, str], secrets.Redactor]:
    # Those of the description, with the secrets in their places.
    found = {one: value for one, value in described.headers.items() if not secrets.is_reference(value)}
    hidden = {
        one: secrets.resolve(name, value) for one, value in described.headers.items() if secrets.is_reference(value)
    }
    known = list(hidden.values())
    if described.token:
        token = secrets.resolve(name, described.token)
        known.append(token)
        hidden["Authorization"] = f"Bearer {token}"
    return found | hidden, secrets.Redactor(known)


def _place(described: Description) -> Path | None:
    if described.cache is False:
        return None
    folder = usual_folder() if described.cache is True else Path(described.cache)
    return folder / f"{described.identity}.sqlite"


def _address(described: Description) -> str:
    parts = urlsplit(described.url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _kind_of(rows: Array) -> str:
    # What scores are, by their values.
    given = rows[~np.isnan(rows)]
    if given.min() >= -_ROUNDING and given.max() <= 1 + _ROUNDING:
        return "probabilities"
    whole = not np.isnan(rows).any()
    if whole and given.max() <= _ROUNDING and np.allclose(np.exp(rows).sum(axis=1), 1, atol=_OFF):
        return "log-probabilities"
    return "logits"
