"""One file of each kind that is written, made of numbers that come out alike on every machine: no model, no BLAS."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import toys
from safetensors import safe_open

from deepjudge_core import Access, InputSpec, Judge, JudgeSettings, Observation, Rule, Suite
from deepjudge_core.auditing.outcome import AuditOutcome, SuspectResult
from deepjudge_core.auditing.power import AttackPower, PowerEstimate, Share, ZooModelResult
from deepjudge_core.bundles import log
from deepjudge_core.bundles.commitment import Terms, dump_commitment
from deepjudge_core.bundles.log import Query, QueryLog
from deepjudge_core.bundles.manifest import Manifest
from deepjudge_core.bundles.signing import Signer
from deepjudge_core.bundles.statement import File
from deepjudge_core.components.values import Decision, Vote
from deepjudge_core.judging.calibration import Calibration, calibrate, save_calibration
from deepjudge_core.judging.fdr import FdrResult
from deepjudge_core.judging.judge import MetricResult, Setting, Verdict, judge
from deepjudge_core.judging.measure import Measurements, measure
from deepjudge_core.judging.sequential import SequentialResult
from deepjudge_core.models.info import Isolation, ModelInfo
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.report.audit_json import dump_report
from deepjudge_core.report.power_json import dump_power
from deepjudge_core.suites.observation import save_observation
from deepjudge_core.suites.suite import CaseTable, GeneratorRecord, save_suite
from deepjudge_core.version import VERSION
from deepjudge_core.zoo.manifest import MissingModel, Zoo, ZooModel, ZooVictim, save_zoo

GOLDEN = Path(__file__).parents[1] / "golden"
CLEAN, ADVERSARIAL, CORNERS = 8, 4, 4
CASES = CLEAN + ADVERSARIAL + CORNERS
HOSTILE = "\u202e<b>|`x`\n\x1b[31m \udcff"


def info(name: str, digest: str, **more: Any) -> ModelInfo:
    layers = {"dense1": 3, "logits": 4}
    return ModelInfo(name, "numpy", digest * 64, more.pop("access", Access.FULL), 4, InputSpec((2, 3)), layers, **more)


def answers(seed: int, suite: str, model: ModelInfo, **more: Any) -> Observation:
    """What a model answers, in quarters and halves."""
    rng = np.random.default_rng(seed)
    probabilities = np.full((CASES, 4), 0.125, np.float32)
    other = rng.integers(2, size=CASES) * (1 + seed % 3 if seed else 0)
    probabilities[np.arange(CASES), (np.arange(CASES) + other) % 4] = 0.625
    # On the seeds half of each neuron's outputs are 0 and half are 1.
    clean = rng.permuted(np.repeat([[0.0], [1.0]], CLEAN // 2, axis=0).repeat(3, axis=1), axis=0)
    activations = np.concatenate([clean, rng.integers(0, 9, (CASES - CLEAN, 3)) / 4]).astype(np.float32)
    return Observation(model, suite, probabilities, {"dense1": activations}, {"dense1": "dense1"}, **more)


def suite(*, mistakes: bool = False) -> Suite:
    rng = np.random.default_rng(5)
    sets = np.repeat([0, 1, 2], [CLEAN, ADVERSARIAL, CORNERS])
    seeds = np.concatenate([np.arange(CLEAN), np.arange(ADVERSARIAL), np.arange(CORNERS)])
    if mistakes:
        sets[-1], seeds[-1] = 3, -1
    made = np.arange(CASES) >= CLEAN + ADVERSARIAL
    records = (
        GeneratorRecord("shove", "adversarial", "this program", {"eps": 0.5, "upward": True, "how": {}}, 8, 4),
        GeneratorRecord(HOSTILE, "corners", "plugin 1.0", {"count": 2, "each": [1, None, "x"]}, 4, 4),
    )
    files = {"graph.onnx": "1" * 64, "graph.onnx.data": "2" * 64}
    return Suite(
        seed=2**70,
        bounds=(0.0, 255.0),
        accuracy=0.875,
        layers=("dense1",),
        seed_indices=np.arange(CLEAN) * 2,
        cases=CaseTable(
            inputs=(rng.integers(0, 256, (CASES, 2, 3))).astype(np.float32),
            labels=np.arange(CASES) % 4,
            sets=sets,
            generators=sets.clip(max=2) - 1,
            seeds=seeds,
            layers=np.where(made & (sets == 2), 0, -1),
            neurons=np.where(made & (sets == 2), np.arange(CASES) % 2, -1),
        ),
        unreached=((0, 2),),
        generators=records,
        victim=answers(0, "", info("victim.onnx", "a", isolation=Isolation.FULL, device="CPU", files=files)),
        notes=("corners: 2 of 3 neurons were reached",),
    )


def observation() -> Observation:
    """Of a model that was asked in every odd way."""
    return answers(
        2,
        suite().digest,
        info("odd.h5", "b", isolation=Isolation.PROCESS, files={".": "b" * 64}),
        classes=(1, 0, 3, 2),
        preprocessing=Preprocessing(255.0, (0.5, 0.25, 0.125), (1.0, 2.0, 4.0)),
        inferred=("classes", "preprocessing"),
        notes=("classes: found from the seeds",),
        unsteady="labels of 1 of 16 cases changed",
    )


def label_only() -> Observation:
    model = info("labels.onnx", "c", access=Access.LABELS)
    whole = answers(3, suite().digest, model)
    return Observation(
        model, whole.suite, whole.probabilities, unmatched="needs the model's layers", notes=("asked for labels",)
    )


def calibration(match: Any = "neurons", controls: int = 4) -> Calibration:
    strata = ("same-data", "other-data", None, "same-data")[:controls]
    seen = [answers(seed, suite().digest, info(f"control-{seed}", str(seed))) for seed in range(4, 4 + controls)]
    return calibrate(suite(), seen, match=match, strata=strata, far=True, registry=toys.registry())


def judge_of(rule: str, options: Mapping[str, Any], **settings: Any) -> Judge:
    """What judges, with options that no rule has to have."""
    metrics = tuple(toys.registry().metrics.select(None))
    return Judge(JudgeSettings(rule=rule, **settings), metrics, Rule(rule, judge=toys.nearest), options)


def report(suspects: Any, by: Calibration, **more: Any) -> AuditOutcome:
    options = more.pop("rule_options", {"share": 0.5, "alpha": {"outputs": 0.25}})
    doubts = more.pop("doubts", ())
    judge = judge_of(more.pop("rule", "nearest"), options, **more)
    return AuditOutcome(suite(), by, judge, tuple(suspects), doubts)


def measured(seen: Observation, by: Calibration) -> Measurements:
    return measure(suite(), seen, match=by.match, registry=toys.registry())


def judged(path: str, seen: Observation, by: Calibration, *, groups: Any = "separate", **more: Any) -> SuspectResult:
    values = measured(seen, by)
    verdict = more.pop("verdict", None) or judge(
        values, by, JudgeSettings(rule="nearest", groups=groups), registry=toys.registry()
    )
    return SuspectResult(path, seen.model, 0.75, seen, values, verdict, **more)


def copied(name: str = "copy.onnx") -> Observation:
    return answers(0, suite().digest, info(name, "d"))


def chance(p_value: float, level: float, decision: Decision) -> Verdict:
    """What a rule with p-values says."""
    stated = Setting(decision, None, None, p_value, 0.2, "so and so <i>many</i> are near")
    vote = Vote(p_value <= level, 0.125, 0.25, None, p_value, level)
    silent = Setting(Decision.INCONCLUSIVE, reason="too few controls", least_p_value=0.2)
    points = "weights-changed-behaviour" if decision is Decision.COPY else None
    metrics = {
        "answers": MetricResult("black-box", 0.0, vote),
        "outputs": MetricResult("white-box", 1e-7, Vote(None, reason="no bound")),
    }
    return Verdict(decision, points, {"black-box": stated, "white-box": silent}, metrics)


def separate() -> AuditOutcome:
    by = calibration()
    return report(
        [
            judged("copy.onnx", copied(), by),
            judged("honest.onnx", answers(9, suite().digest, info("honest.onnx", "e", device="GPU \x1b")), by),
            judged("odd.h5", observation(), by),
            judged(HOSTILE, label_only(), by),
            SuspectResult("none.toy", failure="none.toy: no such file or folder (cannot-read)"),
            SuspectResult("cut.toy", info("cut.toy", "f"), failure="cut.toy: is damaged (wrong-format)"),
        ],
        by,
        doubts=("control-4: is nearer to the victim than the others",),
    )


def joint() -> AuditOutcome:
    by = calibration("none")
    return report([judged("copy.onnx", copied(), by, groups="joint")], by, groups="joint")


def without_controls() -> AuditOutcome:
    by = calibration(controls=0)
    return report([judged("copy.onnx", copied(), by)], by, rule_options={"share": 0.5, "alpha": {}})


def fleet() -> AuditOutcome:
    by = calibration()
    found = [(0.0078125, Decision.COPY), (0.5, Decision.INDEPENDENT)]
    suspects = [
        judged(
            f"s{place}.onnx",
            copied(f"s{place}"),
            by,
            verdict=chance(p, 0.03125, decision),
            tested=FdrResult(p, min(1.0, 2 * p), 0.03125),
        )
        for place, (p, decision) in enumerate(found)
    ]
    failed = SuspectResult("none.toy", failure="none.toy: no such file or folder (cannot-read)")
    return report([*suspects, failed], by, rule="chance", rule_options={"confidence": 0.75}, fdr=0.0625)


def sequential() -> AuditOutcome:
    by = calibration()
    asked = SequentialResult(4, 4, 2, (9, 11, 8), (1, 3, 0), float("inf"), 0.5)
    verdict = Verdict(
        Decision.COPY,
        None,
        {
            "black-box": Setting(Decision.COPY, None, None, 0.015625, 0.0, "3 of 3 answers agree"),
            "white-box": Setting(None, reason="labels alone"),
        },
        {},
    )
    one = SuspectResult("asked.onnx", info("asked.onnx", "d"), None, None, {}, verdict, sequential=asked)
    return report([one], by, rule="chance", rule_options={"level": 0.0625})


def zoo_model(file: str, stratum: Any = None, **more: Any) -> ZooModel:
    common = {"kind": "control", "attack": None, "options": {}, "seed": 11, "accuracy": None, "far": False}
    digests = {"digest": "4" * 64, "weights": "5" * 64, "seconds": 1.25}
    return ZooModel(file=file, stratum=stratum, **common | digests | more)


def zoo(folder: Path) -> Zoo:
    """A control, a stolen model, and two that were not made."""
    return Zoo(
        folder,
        ZooVictim("victim.toy", "toy", "a" * 64, 4, 0.875),
        {"seed": 3, "data": {"train": "8" * 64}, "attacks": ["tune", "listen"], "suite": None},
        (
            zoo_model("controls/one.toy", "same-data", options={"epochs": 3, "rate": 0.5}, accuracy=0.75),
            zoo_model("controls/two.toy", far=True),
            zoo_model("stolen/tune-1.toy", kind="stolen", attack="tune", seed=2**70, accuracy=0.5),
        ),
        (MissingModel("distil", "needs data \u202e", False), MissingModel("stumble", "stumbled", True)),
    )


def power(folder: Path) -> PowerEstimate:
    by, models = calibration(), zoo(folder).models
    results = [judged("", answers(seed, suite().digest, info("m", "1")), by) for seed in (4, 7)]
    shares = {"black-box": Share(1, 1), "white-box": Share(0, 0)}
    return PowerEstimate(
        suite(),
        zoo(folder),
        by,
        judge_of("nearest", {"share": 0.5, "alpha": {}}),
        (
            ZooModelResult(models[0], results[0].measurements, results[0].verdict),
            ZooModelResult(models[1], failure="two.toy: no answer", counts=False),
            ZooModelResult(models[2], results[1].measurements, results[1].verdict),
        ),
        (AttackPower("tune", Share(1, 1), shares, 0, 2, {"answers": 0.75, "surety": 1.0, "outputs": None}),),
        Share(1, 2),
    )


def terms(**later: Any) -> Terms:
    judging = {
        "metrics": ["answers", "surety"],
        "rule": "nearest",
        "rule_options": {"share": 0.5},
        "groups": "separate",
    }
    given = {"metric answers": "this program", "metric surety": "this program", "rule nearest": "plugin 1.0"}
    return Terms("0.1.0", "1" * 64, "2" * 64, judging | later, given)


SIGNER = Signer("ab" * 32, lambda data: bytes(64 - len(data) % 7) + b"\x01" * (len(data) % 7))
REPORTS = {
    "separate": separate,
    "joint": joint,
    "no-controls": without_controls,
    "fdr": fleet,
    "sequential": sequential,
}


def header(path: Path) -> bytes:
    """What stands before the arrays: the text, with the digest of all in it."""
    with safe_open(path, framework="numpy") as file:
        return (file.metadata()["deepjudge"] + "\n").encode()


def texts_of_reports(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and JSON of each report."""
    for name, make in REPORTS.items():
        yield f"report-{name}.json", dump_report(make())
    with mock.patch.object(Share, "interval", (0.125, 0.875)):  # by scipy's own digits
        yield "power.json", dump_power(power(folder))


class _Clock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> "_Clock":
        return cls(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def of_any_version(text: str) -> bytes:
    return text.replace(f'"deepjudge": "{VERSION}"', '"deepjudge": "0.1.0"').encode()


def files(folder: Path) -> dict[str, bytes]:
    """Each file that is written, by its name."""
    made = {name: of_any_version(text) for name, text in texts_of_reports(folder)}
    save_zoo(zoo(folder))
    made["zoo.json"] = of_any_version((folder / "zoo.json").read_text())
    save_suite(folder / "suite", suite())
    save_suite(folder / "suite-mistakes", suite(mistakes=True))
    save_observation(folder / "observation", observation())
    save_observation(folder / "observation-labels", label_only())
    save_calibration(folder / "calibration", calibration())
    for name in ("suite", "suite-mistakes", "observation", "observation-labels", "calibration"):
        made[f"{name}.header.json"] = header(folder / name)
    (folder / "some.file").write_bytes(b"content")
    one = folder / "some.file"
    made["commitment.json"] = dump_commitment(terms(fdr=0.0625), one, one)
    made["commitment-signed.json"] = dump_commitment(terms(sequential=True, budget=9), one, None, SIGNER)
    always = ("suite.safetensors", "calibration.safetensors", "report.json", "environment.json", "queries.jsonl")
    named = {name: File(name, "3" * 64, 7) for name in (*always, "observations/suspect-0002.safetensors")}
    made["manifest.json"] = Manifest(named, terms(), (None, "observations/suspect-0002.safetensors"), (), None).dump()
    made["manifest-withheld.json"] = Manifest(
        named, terms(), (None, "observations/suspect-0002.safetensors"), ("suite.safetensors",), "ab" * 32
    ).dump()
    written = QueryLog(folder / "queries.jsonl")
    with mock.patch.object(log, "datetime", _Clock):
        written.add(Query("victim", "victim.onnx", "a" * 64, "1" * 64, 16, {"dense1": "dense1"}, True, "2" * 64))
        written.add(Query("suspect", HOSTILE, None, "1" * 64, 16, {}, False, None, "cannot be opened"))
    made["queries.jsonl"] = (folder / "queries.jsonl").read_bytes()
    return made
