"""Owners who cheat: who chooses cases, dates, suspects or options, and what verifying makes of it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from authority import OPENSSL, Authority
from bundling import reseal
from commands import HOW, MADE, Cli
from snapshots import Snapshots

from deepjudge_core.bundles import register as runs
from deepjudge_core.bundles.register import parse_register
from deepjudge_core.bundles.verify import verify_bundle
from deepjudge_core.bundles.victim import load_victim
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.apart import upheld
from deepjudge_core.judging.verdict import Setting, Verdict
from deepjudge_core.suites.arithmetic import mistakes_of
from deepjudge_core.suites.challenge import Challenge, mistakes_of_draw, read_value
from deepjudge_core.suites.suite import Suite, load_suite, save_suite

CHALLENGE = "5e" * 32
PLANNED = ("--model", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "victim.json")
DRAWN = ("suite", "victim.toy", "--inputs", "in.npz", *MADE, "--commitment", "victim.json", "--challenge", CHALLENGE)
JUDGED = ("judge", "s.safetensors", "copy.toy", "honest.toy", *HOW, "--calibration", "c.safetensors")
OF_VICTIM = ("--victim-commitment", "victim.json")


@pytest.fixture(autouse=True)
def by_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys that are told by their files, as they are in a worker."""
    opened = toys._open

    def of_file(source: Path, **options: Any) -> Any:
        model = opened(source, **options)
        model.digest = hashlib.sha256(source.read_bytes()).hexdigest()
        return model

    monkeypatch.setattr(toys, "_open", of_file)


@pytest.fixture
def challenged(cli: Cli, snapshots: Snapshots) -> Cli:
    """A suite that answers a challenge, its controls, and a bundle in `out`."""

    def make() -> None:
        assert cli("commit", *PLANNED)[0] == 0
        assert cli(*DRAWN, "-o", "s.safetensors")[0] == 0
        assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
        assert cli(*JUDGED, *OF_VICTIM, "-o", "out")[0] == 1

    snapshots.fill("challenged", cli.folder, make)
    return cli


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("out/report.json").read_text())
    return found


def findings() -> tuple[str, ...]:
    return verify_bundle(Path("out")).findings


# A challenge.


def test_half_of_the_seeds_follow_from_the_challenge(challenged: Cli) -> None:
    suite = load_suite("s.safetensors")
    assert suite.challenge is not None
    chosen, drawn = suite.seed_indices[:10], suite.seed_indices[10:]
    assert len(drawn) == 10
    assert not set(chosen) & set(drawn)
    # Anybody can draw again, by SHA-256 alone.
    ranked = [place for place in suite.challenge.ranked() if place in set(drawn)]
    assert ranked == drawn.tolist()
    # Another challenge, or another commitment, draws others.
    for other in ({"value": "5f" * 32}, {"commitment": "0" * 64}):
        again = Challenge(**{name: getattr(suite.challenge, name) for name in Challenge.__struct_fields__} | other)
        assert again.ranked().tolist() != suite.challenge.ranked().tolist()
        assert again.seed != suite.challenge.seed
    # The whole is the same again.
    assert challenged(*DRAWN, "-o", "again.safetensors")[0] == 0
    assert Path("again.safetensors").read_bytes() == Path("s.safetensors").read_bytes()


def test_drawn_cases_are_judged_apart(challenged: Cli) -> None:
    copy, honest = report()["suspects"]
    assert (copy["decision"], copy["drawn"]["decision"]) == ("copy", "copy")
    assert (honest["decision"], honest["drawn"]["decision"]) == ("independent", "independent")
    assert report()["suite"]["challenge"]["value"] == CHALLENGE
    page = Path("out/report.html").read_text()
    assert CHALLENGE in page
    assert "10 of 20 seeds" in page
    status, out, _ = challenged("verify", "out")
    assert (status, CHALLENGE in out) == (0, True)


def test_a_challenge_answers_what_was_fixed_before(challenged: Cli) -> None:
    """Whoever knows the challenge can change neither the victim nor the inputs nor the options."""
    for words, fact in (
        (("-n", "18", "-g", "shove,poke"), "n: committed to 20, found 18"),
        ((*MADE, "--seed", "7"), "seed: committed to 0, found 7"),
        ((*MADE, "--option", "shove.eps=0.4"), "options: committed to {}"),
    ):
        command = ("suite", "victim.toy", "--inputs", "in.npz", *words, "--commitment", "victim.json")
        status, _, err = challenged(*command, "--challenge", CHALLENGE, "-o", "other.safetensors")
        assert (status, fact in err) == (2, True), err
    x, y = toys.make_inputs(toys.make_model(), n=70, seed=3)
    np.savez("other.npz", x=x, y=y)
    others = [word.replace("in.npz", "other.npz") for word in DRAWN]
    assert "inputs: committed to" in challenged(*others, "-o", "other.safetensors")[2]
    # Of which no suite could be made: that they are others is said first.
    np.savez("other.npz", x=x[:2], y=y[:2])
    status, _, err = challenged(*others, "-o", "other.safetensors")
    assert (status, "inputs: committed to" in err) == (2, True), err
    toys.save_model(Path("victim.toy"), noise=0.01)
    assert "victim: committed to" in challenged(*DRAWN, "-o", "other.safetensors")[2]
    assert not Path("other.safetensors").exists()


def test_a_challenge_and_its_commitment_go_together(challenged: Cli) -> None:
    alone = DRAWN[: DRAWN.index("--commitment")]
    for words, missing in ((("--challenge", CHALLENGE), "--commitment"), (OF_VICTIM[:0] + DRAWN[-4:-2], "--challenge")):
        challenged.refuses(2, "missing-value", *alone, *words, "-o", "x.safetensors", facts=(missing,))
    challenged.refuses(2, "wrong-value", *DRAWN[:-1], "ab", "-o", "x.safetensors", facts=("ab", "16 bytes"))
    one = (*(word if word != "20" else "1" for word in DRAWN), "-o", "x.safetensors")
    assert challenged(*one)[0] == 2
    status, _, err = challenged(*JUDGED, "-o", "other")
    assert (status, "challenge" in err) == (2, True)
    status, _, err = challenged("judge", "s.safetensors", "copy.toy", "--calibration", "c.safetensors", "--sequential")
    assert (status, "challenge" in err) == (2, True)


def test_what_a_beacon_published_is_a_challenge(tmp_path: Path) -> None:
    (tmp_path / "pulse.json").write_text('{"pulse": 1}')
    value = read_value(str(tmp_path / "pulse.json"))
    assert read_value(value.upper()) == value
    assert len(value) == 64


def test_a_draw_that_was_chosen_is_found(challenged: Cli) -> None:
    """Other inputs than the challenge draws, in another order, or with too many passed over."""
    suite = load_suite("s.safetensors")
    challenge, seeds = suite.challenge, suite.seed_indices
    assert challenge is not None
    assert not list(mistakes_of_draw(challenge, seeds, suite.accuracy))
    swapped = seeds.copy()
    swapped[-2:] = swapped[:-3:-1]
    beyond = np.where(np.arange(len(seeds)) == 19, 60, seeds)
    big = Challenge(challenge.value, challenge.commitment, 2000, 10)
    last = big.ranked()[-10:]
    picked = np.concatenate([np.setdiff1d(np.arange(2000), last)[:10], last])
    for forged, whose in ((swapped, challenge), (beyond, challenge), (picked, big)):
        assert list(mistakes_of_draw(whose, forged, 0.9))


def test_a_verdict_that_the_drawn_cases_do_not_uphold_is_none(challenged: Cli) -> None:
    """Cases on which a rival happens to agree accuse it; those that nobody chose do not."""
    copy, other = (
        Verdict(decision, None, {"black-box": Setting(decision), "white-box": Setting(None)}, {})
        for decision in (Decision.COPY, Decision.INDEPENDENT)
    )
    assert upheld(copy, copy) is copy
    assert upheld(other, other) is other
    for one, drawn in ((copy, other), (other, copy)):
        found = upheld(one, drawn)
        assert (found.decision, "drawn" in str(found.reason)) == (Decision.INCONCLUSIVE, True)
    # What does not rest on cases stands.
    by_weights = replace(copy, settings={**other.settings, "weights": Setting(Decision.COPY)})
    assert upheld(by_weights, other) is by_weights
    assert upheld(replace(copy, reason="its files are identical"), other).decision is Decision.COPY


# Cases that were chosen.


def forged(suite: Suite, change: Callable[[Suite], Suite]) -> list[str]:
    registry = toys.registry()
    return list(mistakes_of(change(suite), {one.name: one for one in registry.generators.select()}))


def with_inputs(suite: Suite, rows: np.ndarray, values: Any) -> Suite:
    inputs = suite.cases.inputs.copy()
    inputs[rows] = values
    return replace(suite, cases=replace(suite.cases, inputs=inputs))


def with_record(suite: Suite, **more: Any) -> Suite:
    from msgspec.structs import replace as changed

    return replace(suite, generators=(changed(suite.generators[0], **more), *suite.generators[1:]))


def first_adversarial(suite: Suite) -> int:
    return int(np.flatnonzero(suite.rows("adversarial"))[0])


def relabelled(suite: Suite) -> Suite:
    place = first_adversarial(suite)
    assert suite.victim.probabilities is not None
    p = suite.victim.probabilities.copy()
    p[place] = np.eye(p.shape[1], dtype=np.float32)[suite.cases.labels[place]]
    return replace(suite, victim=replace(suite.victim, probabilities=p))


CHOSEN: dict[str, Callable[[Suite], Suite]] = {
    "a case far from its seed": lambda s: with_inputs(s, np.flatnonzero(s.rows("adversarial"))[:1], 0.0),
    "a case out of the bounds": lambda s: with_inputs(s, np.flatnonzero(s.rows("corners"))[:1], 1.5),
    "a smaller radius than that of the cases": lambda s: with_record(s, options={"eps": 0.1, "upward": True}),
    "no radius": lambda s: with_record(s, options={}),
    "fewer cases than were kept": lambda s: with_record(s, kept=s.generators[0].kept + 1, made=99),
    "fewer cases than seeds": lambda s: with_record(s, made=s.generators[0].kept),
    "a case that the victim gets right": relabelled,
    "a seed twice": lambda s: replace(s, seed_indices=np.repeat(s.seed_indices[:1], len(s.seed_indices))),
    "labels of other seeds": lambda s: replace(
        s, cases=replace(s.cases, labels=np.where(s.rows("corners"), (s.cases.labels + 1) % 4, s.cases.labels))
    ),
}


@pytest.mark.parametrize("choice", CHOSEN)
def test_cases_are_what_their_records_say(challenged: Cli, choice: str) -> None:
    suite = load_suite("s.safetensors")
    assert not forged(suite, lambda whole: whole)
    assert forged(suite, CHOSEN[choice])


def test_chosen_cases_are_found_in_a_bundle(challenged: Cli) -> None:
    suite = load_suite("out/suite.safetensors")
    save_suite("out/suite.safetensors", with_inputs(suite, np.flatnonzero(suite.rows("corners"))[:1], 1.5))
    reseal()
    assert any(line.startswith("suite.safetensors: ") and "bounds" in line for line in findings())


def test_options_that_were_chosen_are_said(challenged: Cli) -> None:
    assert set(report()["chosen"]) == {"n", "generators", "rule", "metrics"}
    page = Path("out/report.html").read_text()
    assert "options other than standard" in page
    assert "n, generators, rule, metrics" in challenged("verify", "out")[1]
    found = report() | {"chosen": {}}
    Path("out/report.json").write_text(json.dumps(found, indent=2) + "\n")
    reseal()
    assert any("chosen" in line for line in findings())


def test_a_suite_is_made_again(challenged: Cli) -> None:
    again = ("verify", "out", "--remake", "victim.toy", "--inputs", "in.npz")
    status, out, _ = challenged(*again)
    assert (status, "same digest" in out) == (0, True), out
    # Of all cases those that suit the owner, with records and answers that fit: only the victim tells.
    suite = load_suite("out/suite.safetensors")
    rows = np.flatnonzero(suite.rows("adversarial"))
    low = with_inputs(suite, rows[:1], np.clip(suite.cases.inputs[rows[:1]] - 1e-2, 0, 1))
    save_suite("out/suite.safetensors", low)
    status, out, _ = challenged(*again)
    assert status == 4
    toys.save_model(Path("other.toy"), seed=5)
    status, out, _ = challenged("verify", "out", "--remake", "other.toy", "--inputs", "in.npz")
    assert (status, "wrong " in out) == (4, True)
    challenged.refuses(2, "missing-value", *again[:-2], facts=("--inputs",))


# Who was first.


def test_a_reversed_claim_is_said_to_be_one(challenged: Cli) -> None:
    """The victim was made from the suspect: all else is the same, and the report says that it could be."""
    page = Path("out/report.html").read_text()
    assert "does not show who was first" in page
    assert "nothing shows since when it has existed" in challenged("verify", "out")[1]


@pytest.mark.skipif(OPENSSL is None, reason="openssl, which is the authority, is not installed")
def test_dates_of_both_sides_are_told(challenged: Cli) -> None:
    assert challenged("commit", *PLANNED, "--tsa-request", "victim.tsq")[0] == 0
    Authority.make(Path("authority")).answer("victim.tsq", "victim.tsr")
    stamped = (*OF_VICTIM, "--victim-tsa-response", "victim.tsr")
    root = ("--tsa-certificate", "authority/root.pem")
    for day, said in (("2099-01-01", "became public later"), ("2001-01-01", "may have been made from it")):
        assert challenged(*JUDGED, *stamped, "--published", day, "-o", "out")[0] == 1
        assert report()["suspects"][0]["published"] == day
        assert said in Path("out/report.html").read_text()
        assert findings() == ()
    forged = report() | {"dated": report()["dated"] | {"date": "2001-01-01T00:00:00Z"}}
    Path("out/report.json").write_text(json.dumps(forged, indent=2) + "\n")
    reseal()
    assert any("dated" in line for line in findings())
    assert challenged("verify", "out", *root)[0] == 4
    challenged.refuses(
        2, "missing-value", *JUDGED, "--victim-tsa-response", "victim.tsr", "-o", "x", facts=("victim.tsr",)
    )
    challenged.refuses(2, "wrong-value", *JUDGED, "--published", "yesterday", facts=("--published",))


def test_a_commitment_to_another_victim_is_refused(challenged: Cli) -> None:
    assert challenged("commit", "--model", "honest.toy", "-o", "other.json")[0] == 0
    status, out, _ = challenged("show", "other.json")
    assert (status, load_victim(Path("other.json")).terms.model in " ".join(out.split())) == (0, True)
    Path("changed.json").write_text(Path("other.json").read_text().replace("honest.toy", "x.toy"))
    challenged.refuses(4, "damaged-file", "show", "changed.json", facts=("to a victim", "SHA-256"))
    status, _, err = challenged(*JUDGED, "--victim-commitment", "other.json", "-o", "x")
    assert (status, "victim: committed to" in err) == (2, True)
    assert challenged("commit", "-o", "x.json")[0] == 2
    assert challenged("commit", "s.safetensors", "--model", "victim.toy", "-o", "x.json")[0] == 2
    assert challenged("commit", "s.safetensors", "--inputs", "in.npz", "-o", "x.json")[0] == 2


# Shopping.


def test_suspects_are_those_that_were_named(challenged: Cli) -> None:
    committing = ("commit", "s.safetensors", "c.safetensors", *HOW, "--suspects", "copy.toy", "-o", "commitment.json")
    assert challenged(*committing)[0] == 0
    status, _, err = challenged(*JUDGED, *OF_VICTIM, "--commitment", "commitment.json", "-o", "other")
    assert (status, "honest.toy" in err) == (2, True)
    both = [word if word != "copy.toy" else "copy.toy,honest.toy,controls" for word in committing]
    assert challenged(*both)[0] == 0
    assert challenged(*JUDGED, *OF_VICTIM, "--commitment", "commitment.json", "-o", "out")[0] == 1
    status, out, _ = challenged("verify", "out")
    assert (status, "4 of the 6 suspects" in out) == (0, True)


def test_each_run_is_registered(challenged: Cli) -> None:
    """Who judges until it pleases leaves a line each time, and what a commitment knew of cannot be left out."""
    assert challenged(*JUDGED)[0] == 1
    register = Path("s.runs.jsonl").read_bytes()
    assert len(parse_register(register)) == 2
    assert challenged("commit", "s.safetensors", "c.safetensors", *HOW, "-o", "commitment.json")[0] == 0
    committed = (*JUDGED, *OF_VICTIM, "--commitment", "commitment.json", "-o", "out")
    assert challenged(*committed)[0] == 1
    assert len(parse_register(Path("out/runs.jsonl").read_bytes())) == 3
    assert "3 runs" in challenged("verify", "out")[1]
    assert findings() == ()
    Path("s.runs.jsonl").unlink()
    assert challenged(*committed)[0] == 1
    assert any("runs.jsonl: expected to begin with the 2 runs" in line for line in findings())
    for change in (register[:-1], register[1:], register + register, b""):
        Path("out/runs.jsonl").write_bytes(change)
        reseal()
        assert any(line.startswith("runs.jsonl: ") for line in findings())
    Path("s.runs.jsonl").write_bytes(register[:-9])
    challenged.refuses(4, "damaged-file", *JUDGED, facts=("s.runs.jsonl",), leaves=None)


def test_nothing_shows_since_when_without_a_time_stamp(challenged: Cli) -> None:
    said = "othing shows since when cases, controls and rule have been fixed"
    assert said in Path("out/report.html").read_text()
    assert said in challenged("verify", "out")[1]


def test_adding_a_run_reads_each_line_before_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, suite = tmp_path / "suite.runs.jsonl", "0" * 64
    for _ in range(3):
        runs.add_run(path, suite, [], {})
    read: list[bytes] = []
    real = runs.parse_json
    monkeypatch.setattr(runs, "parse_json", lambda line: read.append(line) or real(line))
    runs.parse_register.cache_clear()
    runs.add_run(path, suite, [], {})
    assert read == path.read_bytes().splitlines()[:3]
