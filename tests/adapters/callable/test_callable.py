"""Functions and estimators, which answer and can be asked for nothing else."""

import functools
from collections.abc import Callable
from typing import Any

import deepjudge_callable
import numpy as np
import pytest
from refusals import refused

import deepjudge_core as dj
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.testing import Check, NumpyModel, model_checks, parametrize_with_checks

SHAPE = (3, 4, 4)
NETWORK = NumpyModel.random(SHAPE, (12, 7), 4, seed=1)
BINARY = NumpyModel.random(SHAPE, (12,), 1, seed=2)
X = np.random.default_rng(0).random((20, *SHAPE), dtype=np.float32)


def logits(x: np.ndarray) -> np.ndarray:
    return NETWORK.forward(x, None)[0]


def probability(x: np.ndarray) -> np.ndarray:
    return BINARY.predict(x)[:, 1]


FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any], NumpyModel]] = {
    "probabilities": (NETWORK.predict, {}, NETWORK),
    "logits": (logits, {}, NETWORK),
    "logits, as its user says": (logits, {"scores": "logits", "classes": 4}, NETWORK),
    "lists": (lambda x: NETWORK.predict(x).tolist(), {"batch_size": 3}, NETWORK),
    "one probability": (probability, {"scores": "sigmoids", "classes": 2}, BINARY),
    "partial": (functools.partial(NETWORK.predict), {}, NETWORK),
}


def opened(source: Any, **options: Any) -> dj.Model:
    return dj.open_model(source, **{"input_shape": SHAPE, **options}, registry=registry())


@functools.cache
def registry() -> Any:
    installed = dj.load_registry()
    return installed if "callable" in installed.adapters else dj.load_registry({"callable": deepjudge_callable})


@parametrize_with_checks(
    (kind, model_checks(opened(function, **options), X)) for kind, (function, options, _) in FUNCTIONS.items()
)
def test_a_function_keeps_the_contract(check: Check) -> None:
    check()


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_function_answers_as_the_model_that_it_asks(kind: str) -> None:
    function, options, network = FUNCTIONS[kind]
    model = opened(function, **options)
    np.testing.assert_allclose(model.predict(X), network.predict(X), atol=1e-6)
    assert (model.classes, model.access) == (network.classes, dj.Access.BLACK_BOX)


@pytest.mark.parametrize(
    ("source", "options", "code", "facts"),
    [
        (NETWORK.predict, {"input_shape": None}, "missing-value", ("predict", "input_shape=")),
        (NETWORK.predict, {"input_shape": (3, -1)}, "wrong-value", ("-1",)),
        (NETWORK.predict, {"classes": 3}, "unusable-model", ("3", "4")),
        (NETWORK.predict, {"scores": "odds"}, "wrong-value", ("'odds'", "logits")),
        (NETWORK.predict, {"dtype": "text"}, "wrong-value", ("'text'",)),
        (lambda x: NETWORK.predict(x).argmax(axis=1), {}, "bad-answer", ("label",)),
        (lambda x: NETWORK.predict(x)[:-1], {}, "bad-answer", ("(16, classes)", "(15, 4)")),
        (lambda x: NETWORK.predict(x)[None], {}, "bad-answer", ("(1, 16, 4)",)),
        (lambda x: NETWORK.predict(x) * np.nan, {}, "bad-answer", ("NaN",)),
        (lambda x: "ham", {}, "bad-answer", ("str",)),
        (lambda x: None, {}, "bad-answer", ("NoneType",)),
        (lambda x: x.flat[0] / 0 and {}["there"], {}, "cannot-answer", ("16",)),
        (NumpyModel, {}, "unusable-model", ("class",)),
        (NETWORK.predict, {"adapter": "torch"}, "conflict", ("torch",)),
        (NETWORK.predict, {"adapter": "jax"}, "unknown-name", ("'jax'", "callable")),
        (NETWORK.predict, {"shape": SHAPE}, "unusable-model", ("'shape'", "input_shape")),
    ],
)
def test_what_is_no_classifier_is_refused(source: Any, options: Any, code: str, facts: tuple[str, ...]) -> None:
    with np.errstate(all="ignore"), refused(dj.DeepJudgeError, *facts, code=code):
        opened(source, **options)


def test_a_model_that_can_be_called_is_opened_by_nobody() -> None:
    class Called(NumpyModel):
        def __call__(self, x: np.ndarray) -> None:
            raise AssertionError

    model = Called([(np.ones((2, 3)), np.zeros(3))], (2,))
    assert dj.open_model(model, registry=registry()) is model


def test_a_special_adapter_goes_first_and_two_are_one_error() -> None:
    def claiming(name: str) -> Any:
        class Plugin:
            @dj.hookimpl
            def deepjudge_adapters(self) -> list[Adapter]:
                return [
                    Adapter(name, (), lambda source: getattr(source, "mine", False), lambda source: NETWORK),
                ]

        return Plugin()

    def mine(x: np.ndarray) -> None:
        raise AssertionError

    mine.mine = True  # type: ignore[attr-defined]
    one = dj.load_registry({"callable": deepjudge_callable, "one": claiming("one")})
    assert dj.open_model(mine, registry=one) is NETWORK
    two = dj.load_registry({"one": claiming("one"), "two": claiming("two")})
    with refused(UsageError, "one", "two", "mine", "adapter=", code="conflict"):
        dj.open_model(mine, registry=two)
    assert dj.open_model(mine, registry=two, adapter="two") is NETWORK


def test_functions_are_one_if_they_answer_alike_and_their_answers_tell() -> None:
    assert opened(NETWORK.predict).digest == opened(functools.partial(NETWORK.predict)).digest
    assert opened(NETWORK.predict).digest != opened(logits).digest

    def label(x: np.ndarray) -> np.ndarray:
        return np.eye(4)[NETWORK.predict(x).argmax(axis=1)]

    assert opened(label).digest != opened(label).digest


def test_an_audit_of_functions() -> None:
    suspects = {"copy": NETWORK.perturbed(0.02, 1), "honest": NumpyModel.random(SHAPE, (12, 7), 4, seed=9)}
    controls = [NumpyModel.random(SHAPE, (12, 7), 4, seed=seed) for seed in range(20, 26)]
    inputs = dj.Inputs(X, NETWORK.predict(X).argmax(axis=1))
    outcome = dj.audit(
        NETWORK.predict,
        [dj.LiveModel(model.predict, {"name": name}) for name, model in suspects.items()],
        inputs,
        controls=[control.predict for control in controls],
        settings=dj.AuditSettings(suite=dj.SuiteSettings(n=10, force=True, options={"square": {"eps": 0.5}})),
        session=dj.Session(registry=registry()),
    )
    assert [generator.name for generator in outcome.suite.generators] == ["square"]
    assert [result.path for result in outcome.suspects] == ["copy", "honest"]
    assert [result.failure for result in outcome.suspects] == [None, None]
    distances = [result.measurements["jsd"].value for result in outcome.suspects if result.measurements]
    assert distances[0] < distances[1]


def test_estimators() -> None:
    pytest.importorskip("sklearn")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.svm import LinearSVC

    rows, labels = X.reshape(20, -1), np.arange(20) % 3
    model = dj.open_model(LogisticRegression().fit(rows, labels), registry=registry())
    assert (str(model.input), model.classes, model.notes) == ("48", 3, ())
    np.testing.assert_allclose(
        model.predict(rows), LogisticRegression().fit(rows, labels).predict_proba(rows), atol=1e-5
    )
    named = dj.open_model(RandomForestClassifier(5).fit(rows, np.array(list("cab"))[labels]), registry=registry())
    assert "a, b, c" in named.notes[0]
    two = dj.open_model(LinearSVC().fit(rows, labels == 1), registry=registry(), scores="logits")
    assert (two.predict(rows).argmax(axis=1) == LinearSVC().fit(rows, labels == 1).predict(rows)).all()
    both = MultiOutputClassifier(LogisticRegression()).fit(rows, np.stack([labels == 1, labels == 2], axis=1))
    for estimator, facts in (
        (LinearRegression().fit(rows, labels), ("predict_proba",)),
        (LogisticRegression(), ("fit",)),
        (both, ("2 outputs",)),
    ):
        with refused(ModelError, *facts):
            dj.open_model(estimator, registry=registry())
