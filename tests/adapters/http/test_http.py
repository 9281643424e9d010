"""Models behind an API: each protocol answers as the model behind it, and awkward servers get one line."""

import email.utils
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deepjudge_http
import numpy as np
import pytest
import toys
from awkward_api import Api, closes, everything, greatest, label, rounded, sends, serving, stalls, status

from deepjudge_core import Access, InputSpec, Model
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.registry import Adapters, Plugin
from deepjudge_core.errors import ModelError
from deepjudge_core.testing import model_checks

pytest.importorskip("httpx2", reason="needs httpx2: pip install 'deepjudge[http]'")
from deepjudge_http import transport

NAMES = ["ant", "bee", "cat", "dog"]
VECTORS = toys.make_model(3)
PICTURES = toys.make_model(4, shape=(5, 6))
X = toys.make_inputs(VECTORS, 8)[0]
PIXELS = (np.random.default_rng(0).integers(0, 256, (6, 5, 6)) / 255).astype(np.float32)
[ADAPTER] = deepjudge_http.deepjudge_adapters()
OPENED: list[Model] = []


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[float]]:
    """What was waited for; nobody waits. Nothing is kept where the user's is."""
    waited: list[float] = []
    monkeypatch.setattr(transport.Transport, "sleep", staticmethod(waited.append))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield waited
    while OPENED:
        OPENED.pop().gateway.close()  # type: ignore[union-attr]


def opened(folder: Path, api: Api, protocol: str = "oip", more: str = "", **options: Any) -> Model:
    path = folder / "suspect.api.toml"
    path.write_text(f'url = "{api.url(protocol)}"\n{more}')
    options = {"expected": InputSpec(api.model.input.shape), **options}
    OPENED.append(ADAPTER.open(path, name="suspect", **options))
    return OPENED[-1]


def refused(call: Callable[[], Any]) -> ModelError:
    with pytest.raises(ModelError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


# What a model answers.

FLAT = {
    "oip": ("oip", "classes = 4", everything),
    "oip, classes by its metadata": ("oip", "", everything),
    "tensorflow": ("tensorflow", "", everything),
    "a template": ("json", 'protocol = "template"\nclasses = 4\nbatch = 3\n[request]\nbody = { samples = "$inputs" }\n'
                   '[answer]\neach = "/results"\nscores = "/found"', everything),
    "names and scores": ("json", 'protocol = "template"\nclasses = ["3", "2", "1", "0"]\n[request]\n'
                         'body = { samples = ["$input"] }\n[answer]\nscores = "/results/0/found"', greatest(4)),
}  # fmt: skip


@pytest.mark.parametrize("kind", FLAT)
def test_each_protocol_answers_as_the_model_behind_it(kind: str, tmp_path: Path) -> None:
    protocol, more, show = FLAT[kind]
    with serving(VECTORS, show) as api:
        model = opened(tmp_path, api, protocol, more)
        expected = VECTORS.predict(X)[:, :: -1 if kind == "names and scores" else 1]
        np.testing.assert_allclose(model.predict(X), expected, atol=1e-6)
        assert (model.classes, model.access, model.framework) == (4, Access.BLACK_BOX, "http")


OF_PICTURES = {
    "huggingface": ("huggingface", f'protocol = "huggingface"\nclasses = {json.dumps(NAMES)}',
                    greatest(4, names=NAMES)),
    "gradio": ("gradio", f'protocol = "gradio"\nclasses = {json.dumps(NAMES)}', greatest(4, names=NAMES)),
    "a form": ("form", 'protocol = "template"\nencoding = "png"\n[request]\nform = "multipart"\nfield = "picture"\n'
               '[answer]\nscores = "/found"', everything),
    "a picture": ("binary", 'protocol = "template"\nencoding = "png"\n[request]\nform = "binary"\n[answer]\n'
                  'scores = "/found"', everything),
}  # fmt: skip


@pytest.mark.parametrize("kind", OF_PICTURES)
def test_pictures_arrive_as_they_are(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="needs Pillow")
    protocol, more, show = OF_PICTURES[kind]
    with serving(PICTURES, show) as api:
        model = opened(tmp_path, api, protocol, more)
        assert model.gateway is not None
        assert model.gateway.expects is not None
        np.testing.assert_array_equal(model.gateway.realised(255 * PIXELS), np.rint(255 * PIXELS))
        np.testing.assert_allclose(model.predict(255 * PIXELS), PICTURES.predict(PIXELS), atol=1e-6)


@pytest.fixture(scope="module")
def served() -> Iterator[Model]:
    with serving(VECTORS) as api:
        model = ADAPTER.open(api.url(), expected=InputSpec((12,)))
        yield model
        model.gateway.close()


def test_a_url_alone_is_enough_where_it_shows_the_protocol(served: Model) -> None:
    np.testing.assert_allclose(served.predict(X), VECTORS.predict(X), atol=1e-6)
    assert served.name.startswith("http://127.0.0.1")


def test_it_keeps_the_contract_of_models(served: Model) -> None:
    for _, check in model_checks(served, X):
        check()


@pytest.mark.parametrize(
    ("show", "more", "access", "kept"),
    [
        (everything, "", Access.BLACK_BOX, (None, None)),
        (rounded(2), "", Access.BLACK_BOX, (None, 2)),
        (rounded(4), "digits = 1", Access.BLACK_BOX, (None, 1)),
        (label, "classes = 4", Access.LABELS, (None, None)),
        (everything, 'gives = "labels"', Access.LABELS, (None, None)),
    ],
)
def test_what_is_shown_is_found(show: Any, more: str, access: Access, kept: Any, tmp_path: Path) -> None:
    with serving(VECTORS, show) as api:
        model = opened(tmp_path, api, more=more)
        answers = model.predict(X)
        np.testing.assert_array_equal(answers.argmax(axis=1), VECTORS.predict(X).argmax(axis=1))
        np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
        reduction = model.gateway.reduction()  # type: ignore[union-attr]
        assert (model.access, (reduction.top, reduction.digits)) == (access, kept)
        if kept[1] is not None:
            np.testing.assert_allclose(answers, reduction.apply(VECTORS.predict(X)), atol=1e-6)


def test_the_greatest_scores_are_what_a_control_is_reduced_to(tmp_path: Path) -> None:
    more = 'protocol = "template"\nclasses = 4\n[request]\nbody = { samples = ["$input"] }\n[answer]\n'
    more += 'scores = "/results/0/found"'
    with serving(VECTORS, greatest(2, 2)) as api:
        model = opened(tmp_path, api, "json", more)
        answers, reduction = model.predict(X), model.gateway.reduction()  # type: ignore[union-attr]
        assert (reduction.top, reduction.digits) == (2, 2)
        np.testing.assert_allclose(answers, reduction.apply(VECTORS.predict(X)), atol=1e-6)
        np.testing.assert_allclose(answers, reduction.apply(answers), atol=0.01)


def test_logits_are_told_from_probabilities_by_their_values(tmp_path: Path) -> None:
    with serving(VECTORS, lambda p: (np.log(p.astype(float)) + 3).tolist()) as api:
        np.testing.assert_allclose(opened(tmp_path, api).predict(X), VECTORS.predict(X), atol=1e-5)


# Nothing is asked twice, and no more than was allowed.


def test_answers_are_kept_and_each_input_is_asked_once(tmp_path: Path) -> None:
    with serving(VECTORS) as api:
        first = opened(tmp_path, api, more="price = 0.5")
        first.predict(np.concatenate([X, X]))
        assert api.asked == len(X)
        ledger = first.gateway.ledger()  # type: ignore[union-attr]
        assert (ledger.total, ledger.price, ledger.failed) == (len(X), len(X) / 2, 0)
        again = opened(tmp_path, api, more="price = 0.5")
        again.predict(X)
        assert api.asked == len(X)
        assert again.gateway.ledger().total == len(X)  # type: ignore[union-attr]


def test_repeats_are_asked_and_kept_in_their_turn(tmp_path: Path) -> None:
    with serving(VECTORS) as api:
        for _ in range(2):
            model = opened(tmp_path, api)
            with model.gateway.repeating():  # type: ignore[union-attr]
                model.predict(X[:2])
                model.predict(X[:2])
            assert api.asked == 4


def test_who_is_interrupted_goes_on_without_paying_twice(tmp_path: Path) -> None:
    with serving(VECTORS, tricks=[]) as api:
        api.tricks = [None, status(400)]  # type: ignore[list-item]
        assert refused(lambda: opened(tmp_path, api, more="batch = 2").predict(X)).code == "cannot-answer"
        assert api.asked == 2
        np.testing.assert_allclose(opened(tmp_path, api, more="batch = 2").predict(X), VECTORS.predict(X), atol=1e-6)
        assert api.asked == len(X)


def test_a_budget_ends_before_it_is_passed(tmp_path: Path) -> None:
    with serving(VECTORS) as api:
        model = opened(tmp_path, api, more="batch = 2\nbudget = 100", budget=5)
        assert refused(lambda: model.predict(X)).code == "over-budget"
        assert api.asked == 4
        assert refused(lambda: model.gateway.afford(2)).code == "over-budget"  # type: ignore[union-attr]
        assert opened(tmp_path, api, more="batch = 2", budget=8).predict(X).shape == (8, 4)
        assert api.asked == 8


def test_without_a_cache_nothing_is_kept(tmp_path: Path) -> None:
    with serving(VECTORS) as api:
        for _ in range(2):
            opened(tmp_path, api, more="cache = false").predict(X)
        assert api.asked == 2 * len(X)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_store_is_said_in_one_line(tmp_path: Path) -> None:
    with serving(VECTORS) as api:
        opened(tmp_path, api, more=f'cache = "{tmp_path}"').predict(X)
        [store] = tmp_path.glob("*.sqlite")
        store.write_bytes(b"nonsense" * 1000)
        assert str(store) in str(refused(lambda: opened(tmp_path, api, more=f'cache = "{tmp_path}"')))


# Awkward servers.

NAN = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [NaN, 0, 0, 1]}]}'
SHORT = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [0.5, 0.25, 0.25]}]}'
DEEP = b'{"outputs": ' + b"[" * 5000 + b"]" * 5000 + b"}"
TWO = b'{"outputs": [{"name": "y", "data": [1]}, {"name": "z", "data": [1]}]}'
TEXT = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": ["a", "b", "c", "d"]}]}'
BIG = b'{"outputs": [{"name": "y", "datatype": "FP32", "data": [1e999, 0, 0, 0]}]}'
BELOW = b'{"outputs": [{"name": "y", "datatype": "FP32", "data": [0.21, 0.21, 0.21, 0.17]}]}'


@pytest.mark.parametrize(
    ("trick", "code", "facts"),
    [
        (sends(b"<html>hello</html>", "text/html"), "bad-answer", ("JSON", "text/html")),
        (sends(b"{"), "bad-answer", ("JSON",)),
        (sends(b"[]"), "bad-answer", ("/outputs", "list of 0")),
        (sends(NAN), "bad-answer", ("NaN",)),
        (sends(BIG), "bad-answer", ("finite",)),
        (sends(SHORT), "bad-answer", ("4", "3")),
        (sends(DEEP), "bad-answer", ("nested",)),
        (sends(TWO), "bad-answer", ("2", "output")),
        (sends(TEXT), "bad-answer", ("label", "4")),
        (sends(BELOW), "bad-answer", ("0.8", "top")),
        (sends(b" " * 2_000_000), "too-large", ("1048832",)),
        (sends(b"{}", content_encoding="gzip"), "bad-answer", ("compression",)),
        (status(404), "cannot-answer", ("404", "not now")),
        (status(401), "cannot-answer", ("401", "secret")),
        (status(307, location="http://127.0.0.2:1/v2/models/toy/infer"), "cannot-answer", ("redirect", "307")),
        (status(302, location="/elsewhere"), "cannot-answer", ("redirect", "302")),
        (status(429, retry_after="100000"), "cannot-answer", ("100000", "wait")),
        (closes, "cannot-answer", ("3 tries",)),
        (status(500), "cannot-answer", ("500", "3 tries")),
    ],
)
def test_awkward_answers_get_one_line(trick: Any, code: str, facts: tuple[str, ...], tmp_path: Path) -> None:
    with serving(VECTORS, always=trick) as api:
        model = opened(tmp_path, api, more="retries = 2")
        error = refused(lambda: model.predict(X[:1]))
        assert error.code == code
        assert str(error).startswith("suspect: ")
        assert all(fact in str(error) for fact in facts), str(error)
        assert model.gateway.ledger().total <= 1  # type: ignore[union-attr]


def test_an_answer_that_never_ends_is_given_up(tmp_path: Path) -> None:
    gate = threading.Event()
    with serving(VECTORS, always=stalls(gate)) as api:
        model = opened(tmp_path, api, more="timeout = 0.3\nretries = 1")
        error = refused(lambda: model.predict(X[:1]))
        gate.set()
        assert (error.code, "2 tries" in str(error)) == ("timed-out", True)


def test_what_fails_in_passing_is_tried_again(tmp_path: Path, waits: list[float]) -> None:
    date = email.utils.formatdate(time.time() + 120, usegmt=True)
    tricks = [status(500), status(429, retry_after="7"), closes, status(503, retry_after=date)]
    with serving(VECTORS, tricks=tricks) as api:
        model = opened(tmp_path, api)
        np.testing.assert_allclose(model.predict(X), VECTORS.predict(X), atol=1e-6)
        ledger = model.gateway.ledger()  # type: ignore[union-attr]
    assert ledger.statuses.tolist() == [200, 500, 429, 0, 503, 200]  # of metadata and answers
    assert (ledger.failed, ledger.total) == (4, len(X))
    assert [waits[1], 0.25 <= waits[0] <= 0.5, 110 <= waits[3] <= 121] == [7.0, True, True]


def test_requests_keep_a_rate(tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport.Transport, "now", staticmethod(lambda: sum(waits)))
    with serving(VECTORS) as api:
        opened(tmp_path, api, more="rate = 4\nbatch = 1").predict(X)
    assert sum(waits) == pytest.approx(len(X) / 4)  # the metadata took its turn first


def test_a_redirect_within_the_host_is_followed(tmp_path: Path) -> None:
    with serving(VECTORS, tricks=[]) as api:
        api.tricks = [status(307, location=f"{api.url()}/infer")]
        np.testing.assert_allclose(opened(tmp_path, api).predict(X), VECTORS.predict(X), atol=1e-6)


def test_a_host_that_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "suspect.api.toml"
    path.write_text('url = "http://127.0.0.1:9/v2/models/x"\nretries = 0')
    assert refused(lambda: ADAPTER.open(path, expected=InputSpec((12,)))).code == "cannot-answer"


# Secrets.

SECRET = "sesame-0f3a9b1c77"


def leaks(text: str) -> bool:
    return any(SECRET[at : at + 6] in text for at in range(len(SECRET) - 5))


@pytest.mark.parametrize("trick", [None, "echo", "page", "label"])
def test_a_secret_reaches_the_host_and_nothing_else(
    trick: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_TEST", SECRET)
    always = {
        None: None,
        "echo": status(400, {"error": f"bad token Bearer {SECRET}"}),
        "page": sends(f"<p>{SECRET}</p>".encode(), "text/html"),
        "label": sends(f'{{"outputs": [{{"name": "y", "datatype": "BYTES", "data": ["{SECRET}"]}}]}}'.encode()),
    }[trick]
    with serving(VECTORS, always=always) as api:
        model = opened(tmp_path, api, more='token = "env:TOKEN_OF_TEST"\nheaders = { X-Api-Key = "env:TOKEN_OF_TEST" }')
        if trick:
            assert not leaks(str(refused(lambda: model.predict(X[:1]))))
        else:
            model.predict(X)
        assert api.headers[-1]["Authorization"] == f"Bearer {SECRET}"
        assert api.headers[-1]["X-Api-Key"] == SECRET
        assert not leaks(repr(model) + repr(vars(model.gateway.ledger())))  # type: ignore[union-attr]
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or not leaks(file.read_bytes().decode("latin-1"))


def test_a_keyring_is_asked_and_its_lack_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring", reason="needs keyring")
    monkeypatch.setattr(
        keyring, "get_password", lambda service, user: SECRET if (service, user) == ("a", "b/c") else None
    )
    with serving(VECTORS) as api:
        opened(tmp_path, api, more='token = "keyring:a/b/c"').predict(X[:1])
        assert api.headers[-1]["Authorization"] == f"Bearer {SECRET}"
        assert "keyring:a/x" in str(refused(lambda: opened(tmp_path, api, more='token = "keyring:a/x"')))
        assert "env:NOT_THERE_1" in str(refused(lambda: opened(tmp_path, api, more='token = "env:NOT_THERE_1"')))


# Descriptions.


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("url = 3", ("url", "3")),
        ("", ("'url'",)),
        ('url = "https://h/v2/models/m"\nspeed = 1', ("'speed'",)),
        ('url = "ftp://h/v2/models/m"', ("url",)),
        ('url = "https://user:pw@h/v2/models/m"', ("password",)),
        ('url = "https://h/v2/models/m?api_key=1"', ("url", "secret")),
        ('url = "https://h/predict"', ("protocol", "oip")),
        ('url = "https://h/v2/models/m"\ntoken = "abc"', ("token", "env:NAME")),
        ('url = "https://h/v2/models/m"\nheaders = { Authorization = "Bearer x" }', ("headers.Authorization",)),
        ('url = "http://h/v2/models/m"\ntoken = "env:X"', ("https",)),
        ('url = "https://h"\nprotocol = "huggingface"', ("classes",)),
        ('url = "https://h"\nprotocol = "template"\n[answer]\nscores = "/a"', ("request.body", "$input")),
        ('url = "https://h"\nprotocol = "template"\n[request]\nbody = "$input"', ("answer", "scores")),
        (
            'url = "https://h"\nprotocol = "template"\n[request]\nbody = "$input"\n[answer]\nlabel = "a"',
            ("answer.label",),
        ),
        ('url = "https://h/v2/models/m"\nclasses = ["a", "a"]', ("classes", "twice")),
        ('url = "https://h/v2/models/m"\ninput = "nonsense"', ("input", "nonsense")),
        ('url = "https://h/v2/models/m"\nencoding = "png"', ("encoding", "array")),
        ("url = ", ("TOML",)),
    ],
)
def test_a_wrong_description_gets_one_line(text: str, facts: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "m.api.toml"
    path.write_text(text)
    error = refused(lambda: ADAPTER.open(path))
    assert error.code == "wrong-format"
    assert all(fact in str(error) for fact in facts), str(error)


def test_a_description_is_opened_by_name_and_never_for_a_folder(tmp_path: Path) -> None:
    adapters = Adapters(Adapter, [Plugin("http", "here", (ADAPTER,))])
    path = tmp_path / "m.api.toml"
    path.write_text('url = "https://h/v2/models/m"')
    assert not adapters.reads(path)
    assert adapters.in_folder(tmp_path) == []
    assert (adapters.of_file(path, "m").name, adapters.of_url("https://h/x").name) == ("http", "http")
    assert [adapters.is_remote(one) for one in (path, "https://h/x", tmp_path / "m.onnx")] == [True, True, False]


def test_the_store_has_no_more_than_it_needs(tmp_path: Path) -> None:
    with serving(VECTORS) as api:
        opened(tmp_path, api, more=f'cache = "{tmp_path}"').predict(X)
    [store] = tmp_path.glob("*.sqlite")
    assert store.stat().st_mode & 0o077 == 0
    base = sqlite3.connect(store)
    assert base.execute("select count(*), sum(queries) from requests").fetchone() == (2, len(X))
    base.close()
