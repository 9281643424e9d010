"""Many suspects at once: the false discovery rate."""

import json
import math
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import deepjudge_statistics
import jsonschema
import numpy as np
import pytest
import reports
import scipy.stats
import toys
from commands import MADE, METRICS, Cli
from deepjudge_statistics.rules import conformal, prediction_bound
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import expect_facts, refused

from deepjudge_core import Decision, Evidence, Judgement, JudgeSettings, Rule, Verdict, Vote
from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.bundles.commitment import Terms
from deepjudge_core.bundles.manifest import Manifest
from deepjudge_core.bundles.statement import File
from deepjudge_core.bundles.verify import verify_bundle
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import PluginError, UsageError
from deepjudge_core.files.documents import parse
from deepjudge_core.judging import fdr
from deepjudge_core.judging.fdr import Fleet, judge_fleet
from deepjudge_core.judging.judge import GROUPS, Judge, MetricResult, Setting
from deepjudge_core.report.audit_json import report_to_json, schema
from deepjudge_core.report.pages.reproducing import commands

P_VALUES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.02, 0.05, 0.1, 1.0]), min_size=1, max_size=12)


def verdict(decisions: dict[str, tuple[Decision, float | None]], **facts: Any) -> Verdict:
    """Of one metric in each setting, which votes as its setting decides."""
    by_name = {
        name: Setting(decision, p_value=p, reason="why", statement="so") for name, (decision, p) in decisions.items()
    }
    votes = {name: None if decision is Decision.INCONCLUSIVE else True for name, (decision, _) in decisions.items()}
    metrics = {name: MetricResult(name, 1.0, Vote(votes[name], reason="why")) for name in decisions}  # type: ignore[arg-type]
    whole = {decision for decision, _ in decisions.values()}
    return Verdict(Decision.COPY if Decision.COPY in whole else Decision.INDEPENDENT, None, by_name, metrics)


def by_p(*p_values: float) -> Callable[[float], Verdict]:
    """What judges a suspect with these p-values, one a setting."""

    def judge(level: float) -> Verdict:
        return verdict(
            {
                g: (Decision.COPY if p <= level else Decision.INDEPENDENT, p)
                for g, p in zip(GROUPS, p_values, strict=False)
            }
        )

    return judge


def copies(verdicts: tuple[Verdict | None, ...]) -> list[bool]:
    return [one is not None and one.decision is Decision.COPY for one in verdicts]


# The procedure.


def rejections(p_values: list[float], rate: float) -> int:
    """By the definition: the greatest k with p_(k) <= k q / m, but for what floats make of that; 0 for none."""
    m, ordered = len(p_values), sorted(p_values)
    return max((i for i in range(1, m + 1) if ordered[i - 1] <= rate * i / m * (1 + 1e-12)), default=0)


@given(P_VALUES, st.floats(0.001, 0.5))
@settings(max_examples=200, deadline=None)
def test_copies_are_those_that_the_procedure_rejects(p_values: list[float], rate: float) -> None:
    verdicts, fleet = judge_fleet([by_p(p) for p in p_values], rate)
    m, ordered, k = len(p_values), sorted(p_values), rejections(p_values, rate)
    assert copies(verdicts) == [k > 0 and p <= ordered[k - 1] for p in p_values]
    assert (fleet.tested, fleet.rejected) == (m, sum(copies(verdicts)))
    assert fleet.cut == (ordered[k - 1] if k else 0)
    adjusted = scipy.stats.false_discovery_control(p_values)
    assert [result.q_value for result in fleet.suspects if result] == pytest.approx(adjusted)
    for result in fleet.suspects:
        assert result
        if abs(result.q_value - rate) > 1e-9:
            assert result.rejected == (result.q_value <= rate)


@given(P_VALUES, st.integers(0, 11), st.floats(0.001, 0.5))
@settings(max_examples=100, deadline=None)
def test_a_level_is_where_a_p_value_would_be_rejected(p_values: list[float], place: int, rate: float) -> None:
    place %= len(p_values)
    _, fleet = judge_fleet([by_p(p) for p in p_values], rate)
    result = fleet.suspects[place]
    assert result
    for p, rejected in ((result.level, True), (min(1.0, result.level * 1.001), False)):
        changed = [*p_values[:place], p, *p_values[place + 1 :]]
        assert copies(judge_fleet([by_p(p) for p in changed], rate)[0])[place] is rejected


@given(P_VALUES, st.floats(0.001, 0.5))
@settings(max_examples=100, deadline=None)
def test_levels_are_the_cuts_that_the_others_leave(p_values: list[float], rate: float) -> None:
    m = len(p_values)
    for place, result in enumerate(judge_fleet([by_p(p) for p in p_values], rate)[1].suspects):
        assert result
        k = rejections([*p_values[:place], 0.0, *p_values[place + 1 :]], rate)
        assert result.level == pytest.approx(rate * k / m)


def test_a_p_value_that_is_just_a_cut_is_rejected() -> None:
    # 1 / 100 is 0.01 * 29 / 29, but for floats.
    assert 1 / 100 > 0.01 * 29 / 29
    assert copies(judge_fleet([by_p(1 / 100)] * 29, 0.01)[0]) == [True] * 29


def work(count: int) -> tuple[int, int]:
    """How often so many suspects are judged, and how many lines of the procedure are run."""
    levels, lines = [], 0
    honest = verdict({"black-box": (Decision.INDEPENDENT, 1.0)})

    def judge_at(p_value: float, level: float) -> Verdict:
        levels.append(level)
        return replace(honest, settings={"black-box": Setting(Decision.INDEPENDENT, p_value=p_value)})

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != fdr.__file__:
            return None
        lines += event == "line"
        return trace

    suspects = [partial(judge_at, p) for p in np.random.default_rng(1995).uniform(size=count)]
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        judge_fleet(suspects, 1e-9)
    finally:
        sys.settrace(before)
    return len(levels), lines


def test_work_grows_as_the_number_of_suspects() -> None:
    few, many = work(500), work(5000)
    assert (few[0], many[0]) == (2 * 500, 2 * 5000)  # at the greatest level, and at that of each
    assert many[1] < 11 * few[1]


def test_settings_are_corrected_for_and_named() -> None:
    verdicts, fleet = judge_fleet([by_p(0.01, 0.6), by_p(0.04, 0.6), by_p(0.04)], 0.05)
    assert [result.p_value for result in fleet.suspects if result] == [0.02, 0.08, 0.04]
    # Of three: 0.02 <= 0.05 / 3 is not, nor are two below 0.1 / 3.
    assert copies(verdicts) == [False, False, False]
    verdicts, fleet = judge_fleet([by_p(0.005, 0.6), by_p(0.9, 0.012), by_p(0.04)], 0.05)
    assert copies(verdicts) == [True, True, True]
    assert [[s.decision for s in v.settings.values()] for v in verdicts if v] == [
        [Decision.COPY, Decision.INDEPENDENT],
        [Decision.INDEPENDENT, Decision.COPY],
        [Decision.COPY],
    ]
    assert verdicts[0]
    expect_facts(str(verdicts[0].settings["black-box"].statement), "so", "2.5 %", "3 suspects", "5 %")


def test_what_cannot_be_tested_is_no_hypothesis() -> None:
    silent = lambda level: verdict({"black-box": (Decision.INCONCLUSIVE, 0.001)})  # noqa: E731
    without = lambda level: verdict({"black-box": (Decision.INDEPENDENT, None)})  # noqa: E731
    verdicts, fleet = judge_fleet([silent, by_p(0.04), None, without], 0.05)
    assert [result is None for result in fleet.suspects] == [True, False, True, True]
    assert (fleet.tested, fleet.rejected, fleet.cut) == (1, 1, 0.04)
    assert copies(verdicts) == [False, True, False, False]
    assert judge_fleet([None, silent], 0.05)[1].tested == 0
    assert Fleet(0.05, ()).cut == 0


def test_answers_that_are_not_steady_accuse_by_small_p_values_only() -> None:
    def unsteady(p: float, level: float) -> Verdict:
        plain = by_p(p)(level)
        if plain.decision is Decision.COPY:
            return plain
        settings = {"black-box": Setting(Decision.INCONCLUSIVE, p_value=p, reason="unsteady")}
        return Verdict(Decision.INCONCLUSIVE, None, settings, plain.metrics, "unsteady")

    verdicts, fleet = judge_fleet([partial(unsteady, 0.2), partial(unsteady, 0.001)], 0.05)
    assert fleet.tested == 2
    assert [one.decision for one in verdicts if one] == [Decision.INCONCLUSIVE, Decision.COPY]


def test_a_suspect_of_which_nothing_is_said_makes_no_room_for_others() -> None:
    def mute(level: float) -> Verdict:
        # At all levels below the rate itself: as where a metric has too few controls for it.
        decision = Decision.COPY if level >= 0.05 else Decision.INCONCLUSIVE
        plain = verdict({"black-box": (decision, 0.001)})
        return plain if decision is Decision.COPY else Verdict(decision, None, plain.settings, plain.metrics, "why")

    others = [by_p(0.024), by_p(0.5)]
    assert copies(judge_fleet([by_p(0.001), *others], 0.05)[0]) == [True, True, False]
    verdicts, fleet = judge_fleet([mute, *others], 0.05)
    assert copies(verdicts) == [False, False, False]
    assert (fleet.tested, fleet.rejected) == (3, 0)
    assert verdicts[0]
    assert verdicts[0].decision is Decision.INCONCLUSIVE


@pytest.mark.parametrize("p_value", [0.9, None])
def test_a_rule_that_does_not_go_by_its_p_values_is_refused(p_value: float | None) -> None:
    with refused(PluginError, "p-values"):
        judge_fleet([lambda level: verdict({"black-box": (Decision.COPY, p_value)})], 0.05)


# Rules.


def drawn(suspects: np.ndarray, controls: np.ndarray, rule: Any) -> list[Callable[[float], Verdict]]:
    def judge(value: float, level: float) -> Verdict:
        judgement: Judgement = rule({"black-box": Evidence(value, controls, 1.0)}, level=level)
        p_value, least = judgement.p_value, judgement.least_p_value
        setting = Setting(judgement.decision, p_value=p_value, least_p_value=least, reason=judgement.reason)
        metric = MetricResult("black-box", value, judgement.votes["black-box"])
        return Verdict(judgement.decision, None, {"black-box": setting}, {"black-box": metric}, judgement.reason)

    return [partial(judge, float(value)) for value in suspects]


def test_the_false_discovery_rate_is_kept() -> None:
    rng = np.random.default_rng(1995)
    shares, caught = [], []
    for _ in range(300):
        suspects, controls = rng.normal(size=20), rng.normal(size=24)
        suspects[:4] -= 6
        accused = copies(judge_fleet(drawn(np.exp(suspects / 10), np.exp(controls / 10), prediction_bound), 0.1)[0])
        shares.append(sum(accused[4:]) / max(sum(accused), 1))
        caught.append(sum(accused[:4]) / 4)
    assert np.mean(shares) - 3.3 * np.std(shares) / math.sqrt(len(shares)) <= 0.1
    assert np.mean(shares) > 0.02
    assert np.mean(caught) > 0.95


def test_too_few_controls_for_a_lone_copy_are_said() -> None:
    # Of 40 suspects: with 99 controls no p-value is below 0.01, and a lone copy would have to be at 0.05 / 40.
    controls = np.linspace(1, 2, 99)
    honest = np.linspace(1.1, 2, 39)
    verdicts, fleet = judge_fleet(drawn(np.array([0.1, *honest]), controls, conformal), 0.05)
    assert fleet.rejected == 0
    assert {one.decision for one in verdicts if one} == {Decision.INCONCLUSIVE}
    assert verdicts[0]
    expect_facts(str(verdicts[0].reason), 799, 99, 700, 0.00125)
    # Ten of them make room for one another, and of the others it can be said that they are none.
    verdicts, fleet = judge_fleet(drawn(np.array([*[0.1] * 10, *honest]), controls, conformal), 0.05)
    assert fleet.rejected == 10
    assert {one.decision for one in verdicts[10:] if one} == {Decision.INDEPENDENT}


# Judging.


def statistics() -> Registry:
    return toys.registry_of(toys=toys, statistics=deepjudge_statistics)


def report(suspects: Any, **judging: Any) -> AuditOutcome:
    chosen = {"rule": "prediction-bound", "fdr": 0.05} | judging
    return toys.outcome(toys.suite(), toys.calibration(8), suspects, JudgeSettings(**chosen), registry=statistics())


def test_a_report() -> None:
    suspects = [toys.make_model(noise=0.05), toys.make_model(9), "none.toy", toys.make_model(12)]
    value = report_to_json(report(suspects))
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(value)))
    assert "level" not in value["rule_options"]
    assert value["fleet"]["tested"] == 3
    copy, honest, failed, _ = value["suspects"]
    assert (copy["decision"], copy["points_to"], failed["decision"]) == ("copy", "weights", "failed")
    assert honest["decision"] == "independent"
    assert failed["tested"] is None
    least = min(setting["p_value"] for setting in copy["settings"].values())
    assert copy["tested"]["p_value"] == min(1, 2 * least)
    assert value["fleet"]["cut"] == copy["tested"]["p_value"] <= copy["tested"]["level"]
    joint = report_to_json(report(suspects, groups="joint"))["suspects"][0]
    assert joint["tested"]["p_value"] == joint["settings"]["joint"]["p_value"]
    alone = report_to_json(report(suspects, fdr=None))
    assert "fleet" not in alone
    assert all("tested" not in suspect for suspect in alone["suspects"])


@pytest.mark.parametrize(
    ("judging", "code", "facts"),
    [
        ({"rule": "nearest"}, "conflict", ("nearest", "p-values")),
        ({"rule": "tolerance-bound"}, "conflict", ("tolerance-bound", "p-values")),
        ({"rule_options": {"level": 0.01}}, "conflict", ("prediction-bound", "level")),
        ({"fdr": 0.0}, "wrong-value", ("fdr", "0.0")),
        ({"fdr": math.nan}, "wrong-value", ("fdr", "nan")),
    ],
)
def test_rates_that_cannot_be_had(judging: dict[str, Any], code: str, facts: tuple[str, ...]) -> None:
    with refused(UsageError, *facts, code=code):
        report([], **judging)


def test_rules_that_can() -> None:
    for name in ("prediction-bound", "conformal", "combine"):
        assert "level" not in Judge.of(JudgeSettings(rule=name, fdr=0.05), statistics()).fixed_options


def test_a_rule_without_p_values_at_some_levels_is_refused_later() -> None:
    def fickle(evidence: Any, *, level: float = 0.01) -> Judgement:
        value = next(iter(evidence.values())).value
        p_value = None if value < 0.9 else 1.0
        decision = Decision.COPY if value < 0.9 else Decision.INDEPENDENT
        return Judgement(decision, None, {name: Vote(True) for name in evidence}, p_value=p_value, statement="so")

    registry = toys.registry_of(toys=toys, mine=SimpleNamespace(deepjudge_rules=rules(fickle)))
    judging = JudgeSettings(rule="fickle", fdr=0.05)
    with refused(PluginError, "p-values"):
        toys.outcome(toys.suite(), toys.calibration(8), [toys.make_model(30)], judging, registry=registry)


def rules(judge: Any) -> Any:
    from deepjudge_core import hookimpl

    return hookimpl(lambda: [Rule("fickle", judge=judge)])


# Commands.


@pytest.fixture
def fleet(cli: Cli) -> Cli:
    """A suite, and a calibration of eight controls."""
    for seed in (5, 6, 7, 8):
        toys.save_model(Path(f"controls/c{seed}.toy"), seed=seed)
    toys.save_model(Path("honest.toy"), seed=9)
    toys.save_model(Path("other.toy"), seed=12)
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
    return cli


HOW = ("--metric", ",".join(METRICS), "--rule", "prediction-bound", "--fdr", "0.05")
SUSPECTS = ("copy.toy", "honest.toy", "other.toy")


def test_the_command(fleet: Cli) -> None:
    judge_all = ("judge", "s.safetensors", *SUSPECTS, "--calibration", "c.safetensors", *HOW)
    status, out, err = fleet(*judge_all, "--json", "r.json")
    assert (status, err) == (1, "")
    assert "fleet: 1 of 3 suspects tested are called copies, those with p-values up to " in out
    assert "at a false discovery rate of 5 % (Benjamini & Hochberg)" in out
    [head] = [line.split() for line in out.splitlines() if line.startswith("suspect ")]
    assert head[-2:] == ["q", "verdict"]
    assert "suspects tested, of a false discovery rate of 5 %" in out
    assert json.loads(Path("r.json").read_text())["fleet"]["rejected"] == 1
    # The page says it, and how to make it again.
    exports = ("--html", "r.html", "--markdown", "r.md", "--sarif", "r.sarif", "--model-card", "card.md")
    assert fleet("report", "r.json", *exports) == (
        0,
        "html: r.html\nmarkdown: r.md\nsarif: r.sarif\nmodel card: card.md\n",
        "",
    )
    page = Path("r.md").read_text()
    assert (
        "3 suspects were tested together (procedure of Benjamini and Hochberg), with a false discovery rate of 5 %"
        in page
    )
    assert "is expected to be independent, if their p-values are right" in page
    assert "Among the 3 suspects tested: q = " in page
    # Controls that are too few for anything.
    status, out, _ = fleet(*judge_all, "--rule", "conformal", "--markdown", "none.md")
    assert status == 3
    assert "fleet: no suspect could be tested for a false discovery rate of 5 %" in out
    assert "No suspect could be tested for a false discovery rate of 5 %." in Path("none.md").read_text()
    shutil.copy("s.safetensors", "suite.safetensors")
    shutil.copy("c.safetensors", "calibration.safetensors")
    [again] = (
        line
        for line in commands(reports.typed(json.loads(Path("r.json").read_text())))
        if line.startswith("deepjudge judge")
    )
    assert fleet(*shlex.split(again)[1:])[0] == 1
    assert Path("report-1.json").read_bytes() == Path("r.json").read_bytes()
    fleet.refuses(2, "conflict", *judge_all, "--rule", "voting", facts=("voting", "p-values"))
    fleet.refuses(2, "wrong-value", *judge_all, "--fdr", "1", facts=("--fdr", "1"))


def test_a_commitment_to_a_rate(fleet: Cli) -> None:
    assert fleet("commit", "s.safetensors", "c.safetensors", *HOW, "-o", "fdr.json")[0] == 0
    judge_all = ("judge", "s.safetensors", *SUSPECTS, "--calibration", "c.safetensors", "--commitment", "fdr.json")
    assert fleet(*judge_all, *HOW)[0] == 1
    fleet.refuses(2, "other-than-committed", *judge_all, *HOW, "--fdr", "0.1", facts=("judging.fdr", "0.05", "0.1"))
    status, _, err = fleet(*judge_all, *HOW[:-2])
    assert status == 2
    assert "judging.fdr: committed to 0.05, found nothing" in err
    statement = json.loads(Path("fdr.json").read_text())
    for value in ("a", 1, True, []):
        statement["predicate"]["terms"]["judging"]["fdr"] = value
        with pytest.raises(ValueError, match=r"judging\.fdr: "):
            parse(Terms, statement["predicate"]["terms"])


def test_a_commitment_from_before_there_were_rates(fleet: Cli) -> None:
    how = HOW[:-2]
    assert fleet("commit", "s.safetensors", "c.safetensors", *how, "-o", "new.json")[0] == 0
    assert "fdr" not in Path("new.json").read_text()
    judge_all = ("judge", "s.safetensors", *SUSPECTS, "--calibration", "c.safetensors", "--commitment", "new.json")
    assert fleet(*judge_all, *how)[0] == 1
    status, _, err = fleet(*judge_all, *HOW)
    assert status == 2
    assert "judging.fdr: committed to nothing, found 0.05" in err


def test_a_bundle(fleet: Cli) -> None:
    (fleet.folder / "broken.toy").write_text("{")
    words = ("audit", "victim.toy", "broken.toy", *SUSPECTS, "--controls", "controls", "--inputs", "in.npz", *MADE)
    assert fleet(*words, *HOW, "-o", "out")[0] == 1
    assert verify_bundle(Path("out")).findings == ()
    report_values = json.loads(Path("out/report.json").read_text())
    assert [suspect["tested"] is None for suspect in report_values["suspects"]] == [True, False, False, False]
    # Whoever forges a report and the manifest with it is found.
    for change in ({"fdr": 0.1}, {"cut": 0.049}, {"rejected": 3}):
        forged = report_values | {"fleet": report_values["fleet"] | change}
        data = (json.dumps(forged, indent=2) + "\n").encode()
        Path("out/report.json").write_bytes(data)
        manifest = Manifest.parse(Path("out/manifest.json").read_bytes())
        files = {**manifest.files, "report.json": File.of_bytes(data, "report.json")}
        Path("out/manifest.json").write_bytes(
            Manifest(files, manifest.terms, manifest.observations, manifest.withheld, manifest.signed_by).dump()
        )
        # The page, too, may be found to be another report's.
        assert len([line for line in verify_bundle(Path("out")).findings if line.startswith("report.json: ")]) == 1


def test_the_file_of_an_audit(fleet: Cli) -> None:
    text = """output = "out"
metrics = ["answers", "surety", "outputs"]
[victim]
path = "victim.toy"
[inputs]
path = "in.npz"
[suite]
seeds = 20
[generators.shove]
[generators.poke]
[rule]
name = "prediction-bound"
fdr = 0.05
[[controls]]
path = "controls"
[[suspects]]
path = "copy.toy"
"""
    Path("a.toml").write_text(text)
    assert fleet("audit", "a.toml")[0] == 1
    assert json.loads(Path("out/report.json").read_text())["fleet"]["fdr"] == 0.05
    for old, new, line, facts in (
        ("fdr = 0.05", "fdr = 5", 13, ("0", "1", "5")),
        ('name = "prediction-bound"', 'name = "nearest"', 13, ("nearest", "p-values")),
        ("[[controls]]", "[rule.options]\nlevel = 0.1\n[[controls]]", 13, "found both"),
    ):
        Path("b.toml").write_text(text.replace(old, new))
        status, _, err = fleet("audit", "b.toml")
        assert status == 2
        assert err.startswith(f"deepjudge: b.toml:{line}: rule.fdr: ")
        assert all(fact in err for fact in facts)
