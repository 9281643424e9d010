"""Whole audits of suspects behind an API: by what they show, within a budget, with every request in the log."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepjudge_http
import deepjudge_statistics
import numpy as np
import pytest
import toys
from awkward_api import Show, everything, label, rounded, serving, status

from deepjudge_core import Decision, JudgeSettings, Session, Suite, build_suite, calibrate, observe, select_seeds
from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.auditing.session import QueryEvent
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.bundles.bundle import BundleWriter
from deepjudge_core.bundles.log import read_log, requests_of
from deepjudge_core.fleets.planning import Fleet
from deepjudge_core.fleets.store import Store
from deepjudge_core.fleets.work import perform
from deepjudge_core.judging.judge import Judge
from deepjudge_core.models.model import Model
from deepjudge_core.report.audit_json import audit_report

pytest.importorskip("httpx2", reason="needs httpx2: pip install 'deepjudge[http]'")
SETTINGS = JudgeSettings(rule="nearest", metrics=["answers", "surety"])
REGISTRY = toys.registry_of(toys=toys, http=deepjudge_http, statistics=deepjudge_statistics)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing is kept where the user's is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def described(folder: Path, url: str, more: str = "", name: str = "suspect") -> str:
    path = folder / f"{name}.api.toml"
    path.write_text(f'url = "{url}"\nclasses = 4\nretries = 0\n{more}')
    return str(path)


@pytest.mark.parametrize("show", [everything, rounded(2), label], ids=["everything", "rounded", "labels"])
def test_a_copy_is_told_from_an_honest_model(show: Show, place: Path) -> None:
    suite, calibration = toys.suite(), toys.calibration(8)
    with serving(toys.make_model(0, noise=0.02), show) as copy, serving(toys.make_model(12), show) as honest:
        suspects = [described(place, copy.url(), "price = 2", "copy"), honest.url()]
        if show is label:
            suspects[1] = described(place, honest.url(), name="honest")
        judge = Judge.of(SETTINGS, REGISTRY)
        outcome = judge_suspects(suite, calibration, suspects, judge, session=Session(REGISTRY))
    assert [one.decision for one in outcome.suspects] == [Decision.COPY, Decision.INDEPENDENT]
    first = audit_report(outcome).suspects[0]
    assert first.api
    assert (first.api.shows, first.api.queries, first.api.price) == (
        "labels" if show is label else "probabilities",
        copy.asked,
        2 * copy.asked,
    )
    assert bool(first.api.controls) == (show not in (everything, label))
    assert ("surety" in first.metrics, first.metrics["surety"].value is None) == (True, show is label)


def test_every_request_stands_in_the_log_of_a_bundle(place: Path) -> None:
    suite, calibration, judge = toys.suite(), toys.calibration(8), Judge.of(SETTINGS, REGISTRY)
    with serving(toys.make_model(12)) as api:
        outcome = judge_suspects(suite, calibration, [described(place, api.url())], judge, session=Session(REGISTRY))
    observation = outcome.suspects[0].observation
    assert observation is not None
    bundle = BundleWriter(place / "out")
    bundle.add_suite(suite)
    bundle.add_calibration(calibration, stored=True)
    bundle.add_answer(QueryEvent("suspect", "suspect", observation))
    [*_, last] = read_log(place / "out" / "queries.jsonl")
    assert last.requests == requests_of(observation.exchange)
    assert sum(one.queries for one in last.requests or ()) == api.asked


@pytest.mark.parametrize("show", [everything, label], ids=["everything", "labels"])
def test_case_by_case_no_more_is_asked_than_decides(show: Show, place: Path) -> None:
    suite, calibration = toys.suite(), toys.calibration(8)
    settings = JudgeSettings(rule="prediction-bound", rule_options={"level": 0.5}, sequential=True, budget=9)
    with serving(toys.make_model(0, noise=0.01), show) as api:
        source = described(place, api.url())
        for _ in range(2):  # what was answered is not asked again
            judge = Judge.of(settings, REGISTRY)
            [result] = judge_suspects(suite, calibration, [source], judge, session=Session(REGISTRY)).suspects
            if result.sequential is not None:
                assert api.asked == len(result.sequential.rows) <= 9
            assert result.failure is None


def test_a_budget_that_does_not_suffice_asks_nothing(place: Path) -> None:
    with serving(toys.make_model(12)) as api:
        subject = Subject.of(described(place, api.url()), options={"budget": 10})
        judge = Judge.of(SETTINGS, REGISTRY)
        outcome = judge_suspects(toys.suite(), toys.calibration(8), [subject], judge, session=Session(REGISTRY))
    assert "(over-budget)" in str(outcome.suspects[0].failure)
    assert api.asked == 0


@pytest.mark.parametrize(("more", "code"), [("budget = 10", "over-budget"), ("rate = 9", "cannot-answer")])
def test_a_fleet_asks_an_api_again_that_did_not_answer_today(more: str, code: str, place: Path) -> None:
    suite = toys.suite()
    with serving(toys.make_model(0), always=status(503) if code == "cannot-answer" else None) as api:
        subject = Subject.of(described(place, api.url(), more))
        with Store(place / "results") as store:
            [(_, task)] = Fleet([subject], Session(REGISTRY)).tasks(suite.digest, store)
        assert task is not None
        result = perform(task, suite, registry=REGISTRY)
    assert (result.status, result.code) == ("undone", code)


def test_noise_keeps_a_suspect_from_being_independent(place: Path) -> None:
    rng = np.random.default_rng(0)

    def noisy(p: np.ndarray) -> Any:
        return rng.permutation(p).astype(float).tolist()

    with serving(toys.make_model(12), noisy) as api:
        judge = Judge.of(SETTINGS, REGISTRY)
        [result] = judge_suspects(
            toys.suite(), toys.calibration(8), [described(place, api.url())], judge, session=Session(REGISTRY)
        ).suspects
    assert result.observation is not None
    assert result.observation.unsteady
    assert result.decision is not Decision.INDEPENDENT


def pictured() -> tuple[Model, Suite, Suite]:
    """A victim of small pictures; its suite of any numbers, and that of cases that survive as PNG."""
    victim = toys.make_model(5, shape=(6, 6), name="victim")
    x, y = toys.make_inputs(victim, 200)
    whole = (np.rint(255 * x) / 255).astype(np.float32)
    seeds = select_seeds(victim, whole, y, n=20)
    options: dict[str, Any] = {"options": {"shove": {"eps": 0.37}}, "registry": toys.registry()}
    return (
        victim,
        build_suite(victim, replace(seeds, grid=None), ["shove"], **options),
        build_suite(victim, seeds, ["shove"], pictures="png", **options),
    )


def test_pictures_survive_or_are_not_compared(place: Path) -> None:
    pytest.importorskip("PIL", reason="needs Pillow")
    victim, plain, whole = pictured()
    more = 'protocol = "template"\nencoding = "png"\n[request]\nform = "binary"\n[answer]\nscores = "/found"\n'
    kept = int(whole.rows("adversarial").sum())
    assert kept
    assert any(f"{kept} of " in note for note in whole.notes)
    np.testing.assert_allclose(255 * whole.cases.inputs, np.rint(255 * whole.cases.inputs), atol=1e-3)
    with serving(victim) as api:
        source = described(place, api.url("binary"), more)
        session = Session(REGISTRY)
        with Subject.of(source).answering(whole, session) as answer:
            seen = answer()
        assert seen.exchange is not None
        assert seen.exchange.compared.all()
        np.testing.assert_allclose(seen.probabilities, whole.victim.probabilities, atol=1e-5)
        asked = api.asked
        with Subject.of(source).answering(plain, session) as answer, pytest.raises(Exception, match="adversarial"):
            answer()
        assert api.asked == asked
        # Of a suite with both kinds of cases, those that arrive unchanged are compared.
        mixed = plain.cases.inputs.copy()
        rows = np.flatnonzero(plain.rows("adversarial"))[::2]
        mixed[rows] = np.rint(255 * mixed[rows]) / 255
        some = replace(plain, cases=replace(plain.cases, inputs=mixed))
        some = replace(some, victim=replace(some.victim, probabilities=victim.predict(mixed)))
        with Subject.of(source).answering(some, session) as answer:
            seen = answer()
        assert seen.exchange is not None
        assert seen.exchange.compared[some.rows("adversarial")].sum() == len(rows)
        compared = seen.exchange.compared
        np.testing.assert_allclose(
            seen.probabilities[compared],
            some.victim.probabilities[compared],
            atol=1e-5,  # type: ignore[index]
        )


def test_a_live_api_is_a_control_too(place: Path) -> None:
    with serving(toys.make_model(1), rounded(2)) as api:
        subject = Subject.of(described(place, api.url()))
        with subject.answering(toys.suite(), Session(REGISTRY)) as answer:
            control = answer()
    calibration = calibrate(toys.suite(), [control], ["answers"], registry=toys.registry())
    assert len(calibration.values("answers")) == 0
    assert observe(toys.make_model(1), toys.suite()).exchange is None
