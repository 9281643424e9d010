"""Which metrics are measured on a suite that lacks the cases of some."""

import json
from pathlib import Path

import numpy as np
import pytest
import toys
from commands import Cli
from refusals import refused

from deepjudge_core import JudgeSettings, load_registry
from deepjudge_core.errors import UsageError
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge

REGISTRY = load_registry()
USUAL = ("robd", "jsd", "nod", "nad", "lod", "lad", "recovery")


def measured(metrics: list[str] | None, *makes: str, layers: bool = True) -> tuple[list[str], str | None]:
    judge = Judge.of(JudgeSettings(metrics), REGISTRY, Offer(set(makes), layers))
    return [metric.name for metric in judge.metrics], judge.note


@pytest.mark.parametrize("makes", [("adversarial", "corners"), ("adversarial",), ("corners", "mistakes")])
def test_the_usual_ones_stay_where_one_of_them_fits(makes: tuple[str, ...]) -> None:
    assert measured(None, *makes) == (list(USUAL), None)


@pytest.mark.parametrize(("makes", "layers"), [(("mistakes",), True), (("corners", "mistakes"), False)])
def test_those_that_fit_are_taken_in_place_of_none(makes: tuple[str, ...], layers: bool) -> None:
    names, note = measured(None, *makes, layers=layers)
    assert names == ["akh"]
    assert note is not None
    assert all(word in note for word in ("mistakes", "akh", *USUAL))


def test_what_was_named_is_not_replaced() -> None:
    assert measured(["akh", "robd"], "mistakes") == (["akh", "robd"], None)
    with refused(UsageError, "robd", "nod", "mistakes", "metrics=['akh']", code="conflict"):
        measured(["robd", "nod"], "mistakes")


def test_where_nothing_fits_nothing_is_judged() -> None:
    with refused(UsageError, "answers", "surety", "outputs", "mistakes", code="conflict"):
        Judge.of(JudgeSettings(rule="nearest"), toys.registry(), Offer({"mistakes"}))
    # Case by case, cases are counted, and not metrics.
    assert Judge.of(JudgeSettings(sequential=True, rule="combine"), REGISTRY, Offer({"mistakes"})).note is None


def test_commands_say_it_and_measure_it(cli: Cli) -> None:
    rng = np.random.default_rng(0)
    victim = toys.make_model()
    x = np.concatenate([toys.make_inputs(victim)[0], rng.random((20, *toys.SHAPE), dtype=np.float32)])
    y = victim.predict(x).argmax(axis=1)
    y[-20:] = (y[-20:] + 1) % toys.CLASSES
    np.savez("in.npz", x=x, y=y)
    status, out, _ = cli(
        "suite", "victim.toy", "--inputs", "in.npz", "-n", "20", "-g", "mistakes", "-o", "m.safetensors"
    )
    assert (status, "akh" in out) == (0, True)
    controls = [f"controls/c{seed}.toy" for seed in (1, 2, 3, 4)]
    status, out, _ = cli("calibrate", "m.safetensors", *controls, "-o", "c.safetensors")
    assert (status, "akh" in out, "robd" in out) == (0, True, False)
    status, out, err = cli(
        "judge", "m.safetensors", "copy.toy", "--calibration", "c.safetensors", "--rule", "nearest", "--json", "r.json"
    )
    assert status == 1, out
    assert ("akh" in err, "robd" in err) == (True, True)
    assert list(json.loads(Path("r.json").read_text())["metrics"]) == ["akh"]
    cli.refuses(
        2, "conflict", "judge", "m.safetensors", "copy.toy", "--metric", "jsd", facts=("jsd", "akh", "mistakes")
    )
    cli.refuses(
        2,
        "conflict",
        *("audit", "victim.toy", "copy.toy", "--controls", "controls", "--inputs", "in.npz", "-g", "mistakes"),
        *("--metric", "jsd", "-o", "out"),
        facts=("jsd", "akh", "mistakes"),
    )
