"""A stored observation among the suspects: whoever knows the suite's digest can write one, under any name."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import toys
from commands import HOW, Cli

from deepjudge_core import load_observation, load_suite, save_observation
from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import KnownAnswers, ObservationFile
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.sandbox.policy import Sandbox

INNOCENT = "acme.toy"


def forged(folder: Path) -> Path:
    """The answers of an honest model to the suite, as a thief would write them: another digest, the best isolation."""
    suite = load_suite(folder / "s.safetensors")
    honest = toys.make_model(9)
    answers = load_observation(folder / "honest.safetensors")
    model = replace(answers.model, name=INNOCENT, digest="0" * 64, isolation=Isolation.FULL)
    assert answers.suite == suite.digest
    assert honest.classes == answers.model.classes
    place = folder / "forged.safetensors"
    save_observation(place, replace(answers, model=model))
    return Path(shutil.copy(place, folder / INNOCENT))


@pytest.fixture
def court(cli: Cli) -> Cli:
    """A suite, controls, and the forgery."""
    assert cli("suite", "victim.toy", "--inputs", "in.npz", "-n", 20, "-g", "shove,poke", "-o", "s.safetensors")[0] == 0
    assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
    assert cli("observe", "s.safetensors", "honest.toy", "-o", "honest.safetensors")[0] == 0
    forged(Path())
    return cli


def judged(cli: Cli, *more: object) -> tuple[int, list[dict[str, object]]]:
    how = (*HOW, "--calibration", "c.safetensors", "--json", "r.json", *more)
    status, *said = cli("judge", "s.safetensors", INNOCENT, "copy.toy", *how)
    assert Path("r.json").exists(), said
    return status, json.loads(Path("r.json").read_text())["suspects"]


def test_answers_under_the_name_of_a_model_fail_and_the_copy_is_judged(court: Cli) -> None:
    status, (forgery, copy) = judged(court)
    assert status == 1
    assert (forgery["decision"], copy["decision"]) == ("failed", "copy")
    assert "(stored-answers)" in str(forgery["reason"])


def test_answers_that_are_accepted_are_marked_as_claims(court: Cli) -> None:
    _, (forgery, copy) = judged(court, "--stored", "--html", "r.html")
    assert forgery["decision"] != "failed"
    assert forgery["stored"] is True
    assert "stored" not in copy
    assert f"{Isolation.FULL} (claimed)" in Path("r.html").read_text()


def test_no_claim_of_isolation_satisfies_who_requires_it() -> None:
    suite, calibration = toys.suite(), toys.calibration()
    judge = Judge.of(JudgeSettings(rule="nearest"), toys.registry(), Offer.of(suite))
    found = ObservationFile("o.safetensors", query=QuerySettings(stored=True))
    session = Session(toys.registry(), Sandbox(required=True))
    (result,) = judge_suspects(suite, calibration, [found], judge, session=session).suspects
    assert result.decision is Decision.FAILED
    assert "(stored-answers)" in str(result.failure)


def test_answers_given_as_a_value_are_marked_too() -> None:
    suite, calibration = toys.suite(), toys.calibration()
    judge = Judge.of(JudgeSettings(rule="nearest"), toys.registry(), Offer.of(suite))
    session = Session(toys.registry(), None)
    known = KnownAnswers(toys.seen(9))
    (result,) = judge_suspects(suite, calibration, [known], judge, session=session).suspects
    assert result.verdict is not None
    assert result.stored


def test_a_name_that_is_no_utf8_takes_nobody_with_it(court: Cli) -> None:
    odd = os.fsdecode(b"bad\xff.toy")
    shutil.copy("honest.toy", odd)
    files = ("--json", "r.json", "--html", "r.html", "--csv", "r.csv", "-o", "bundle")
    status, *said = court("judge", "s.safetensors", odd, "copy.toy", *HOW, "--calibration", "c.safetensors", *files)
    assert status == 1, said
    found = json.loads(Path("r.json").read_text())["suspects"]
    assert [(one["path"], one["decision"]) for one in found] == [(odd, "independent"), ("copy.toy", "copy")]
    assert court("verify", "bundle")[0] == 0
