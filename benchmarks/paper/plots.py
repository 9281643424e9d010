"""The figures of a study, as SVG: ROC curves of each metric, and radar charts as in the paper's Fig. 5."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from studies import FAMILIES
from tables import measured

Models = Sequence[Mapping[str, Any]]

# The same file for the same figures, and text that can be searched.
mpl.rcParams.update({"svg.hashsalt": "deepjudge", "svg.fonttype": "none", "font.size": 9})


def draw_roc(models: Models, metrics: Sequence[str], path: Path) -> None:
    """One panel for each metric, one line for each family of attacks, against the controls."""
    figure, panels = plt.subplots(2, 3, figsize=(8.4, 5.8), sharex=True, sharey=True, layout="constrained")
    controls = [model for model in models if model["kind"] == "control"]
    for metric, panel in zip(metrics, panels.flat, strict=True):
        for place, (family, attacks) in enumerate(FAMILIES.items()):
            stolen = [model for model in models if model["attack"] in attacks]
            false, true = roc(measured(stolen, metric), measured(controls, metric))
            # Thinner ones above, so that those below are seen where they are the same.
            width = 4 - place
            panel.plot(false, true, drawstyle="steps-post", label=family, linewidth=width, solid_joinstyle="miter")
        panel.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
        panel.set(title=metric, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    figure.supxlabel("controls that are taken for copies", fontsize=9)
    figure.supylabel("stolen models that are noticed", fontsize=9)
    lines, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=4, frameon=False)
    _save(figure, path)


def roc(stolen: np.ndarray, controls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of controls and of stolen models at or below each threshold, from none to all."""
    if not len(stolen) or not len(controls):
        return np.array([]), np.array([])
    thresholds = np.concatenate([[-np.inf], np.unique(np.concatenate([stolen, controls]))])
    false, true = ((values <= thresholds[:, None]).mean(axis=1) for values in (controls, stolen))
    return false, true


def draw_radar(models: Models, metrics: Sequence[str], path: Path) -> None:
    """One panel for each family and one for the controls, one polygon for each model; larger is nearer to the victim.

    A value is 1 - distance / the median distance of the controls, and 0 beyond it: the victim itself is the outer rim.
    """
    groups = {"controls": [model for model in models if model["kind"] == "control"]}
    medians = {metric: float(np.median(measured(groups["controls"], metric))) for metric in metrics}
    groups |= {name: [m for m in models if m["attack"] in attacks] for name, attacks in FAMILIES.items()}
    figure, panels = plt.subplots(
        1, len(groups), figsize=(12.5, 3.4), subplot_kw={"projection": "polar"}, layout="constrained"
    )
    angles = np.linspace(0, 2 * np.pi, len(metrics), endpoint=False)
    for (name, members), panel in zip(groups.items(), panels, strict=True):
        attacks = list(dict.fromkeys(model["attack"] or model["stratum"] for model in members))
        colours = dict(zip(attacks, plt.rcParams["axes.prop_cycle"].by_key()["color"], strict=False))
        for model in members:
            values = [model["metrics"].get(metric, {}).get("value") for metric in metrics]
            pairs = zip(metrics, values, strict=True)
            nearness = [np.nan if value is None else max(0, 1 - value / medians[metric]) for metric, value in pairs]
            closed = [*nearness, nearness[0]]
            kind = model["attack"] or model["stratum"]
            panel.plot([*angles, angles[0]], closed, color=colours[kind], linewidth=1, alpha=0.7, label=kind)
        _finish_radar(panel, name, angles, metrics)
    _save(figure, path)


def _finish_radar(panel: Axes, name: str, angles: np.ndarray, metrics: Sequence[str]) -> None:
    panel.set_xticks(angles, metrics)
    panel.set_yticks([0.25, 0.5, 0.75], [])
    panel.set(ylim=(0, 1), title=name)
    lines, labels = panel.get_legend_handles_labels()
    once = dict(zip(labels, lines, strict=True))
    panel.legend(once.values(), once.keys(), loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)


def _save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
