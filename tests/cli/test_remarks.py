"""Which remarks the terminal prints below the table of suspects."""

from dataclasses import replace
from pathlib import Path

import pytest
from numpy_transformers import llama
from rich.console import Console
from sketched import save

import deepjudge_core as dj
from deepjudge_core.cli.display import show_report
from deepjudge_core.components.values import Decision


@pytest.mark.parametrize(
    ("others", "decision", "shown"),
    [
        (False, Decision.INDEPENDENT, True),
        (True, Decision.INCONCLUSIVE, True),
        (True, Decision.INDEPENDENT, False),
        (True, Decision.COPY, False),
    ],
)
def test_an_order_that_chance_explains_is_told_where_weights_decide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], others: bool, decision: Decision, shown: bool
) -> None:
    session = dj.Session(sandbox=None)
    found = dj.audit(save(tmp_path / "owner", llama(0)), [save(tmp_path / "honest", llama(9))], session=session)
    [suspect] = found.suspects
    assert suspect.verdict
    metrics = dict(suspect.verdict.metrics)
    assert metrics["order"].vote.log10_p is not None
    if others:  # that another setting was judged, too
        metrics["neuron-sketch"] = replace(metrics["neuron-sketch"], group="black-box")
    verdict = replace(suspect.verdict, decision=decision, metrics=metrics, reason=None)
    capsys.readouterr()
    show_report(Console(), replace(found, suspects=(replace(suspect, verdict=verdict),)))
    assert (str(metrics["order"].reason) in capsys.readouterr().out) is shown
