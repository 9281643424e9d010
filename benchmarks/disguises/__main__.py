"""What an audit sees of disguised copies of a LeNet-5, and whether it accuses honest ones."""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from copies import disguised, read_weights, trained, victim_weights
from copies import honest as made

import deepjudge_core as dj

METRICS = ("robd", "jsd", "jsd-reference", "nod", "nad", "lod", "lad", "recovery")
RULES = ("voting", "prediction-bound")


def main() -> None:
    """Make the suite and the copies, ask all models, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with mnist.npz and victims/mnist_lenet5.h5")
    parser.add_argument("honest", type=Path, help="folder of honest LeNet-5 in ONNX; those that are missing are made")
    parser.add_argument("--count", type=int, default=124, help="how many honest ones there are to be")
    parser.add_argument("--controls", type=int, default=24, help="how many of them are controls")
    parser.add_argument("-o", type=Path, required=True, help="folder for what is made")
    asked = parser.parse_args()
    victim = asked.data / "victims" / "mnist_lenet5.h5"
    copies = asked.o / "copies"
    copies.mkdir(parents=True, exist_ok=True)
    with np.load(asked.data / "mnist.npz") as mnist:
        images, labels = mnist["x_train"][:40000], mnist["y_train"][:40000].astype(np.int64)
        made(scaled(images), labels, asked.count, asked.honest)
        honest = sorted(asked.honest.glob("*.onnx"))
        x, y = mnist["x_train"][40000:46000], mnist["y_train"][40000:46000]
        own = victim_weights(victim)
        list(trained(own, scaled(x), y.astype(np.int64), copies))
        disguised(own, read_weights(honest[0]), copies)
        suite = _suite(victim, mnist)

    def measured(path: Path) -> tuple[dj.Observation, dict[str, float | None]]:
        observation = dj.observe(dj.open_model(path), suite)
        return observation, {name: m.value for name, m in dj.measure(suite, observation, METRICS).items()}

    drawn = [honest[place] for place in np.random.default_rng(0).permutation(len(honest))]
    own_controls, others = drawn[: asked.controls], drawn[asked.controls :]
    calibration = dj.calibrate(suite, [measured(path)[0] for path in own_controls])
    for path in (*sorted(copies.glob("*.onnx")), *others):
        observation, values = measured(path)
        verdicts = {rule: _judged(suite, observation, calibration, rule) for rule in RULES}
        said = [str(verdict.decision) for verdict in verdicts.values()]
        of_settings = [str(setting.decision) for setting in verdicts[RULES[0]].settings.values()]
        shown = " | ".join("" if value is None else f"{value:.3f}" for value in values.values())
        print(f"| {path.stem} | {shown} | {' | '.join([*of_settings, *said])} |", flush=True)
        if observation.unmatched or observation.unsteady:
            print(f"  {observation.unmatched}; {observation.unsteady}", flush=True)
        if path in others:
            COUNTS.update(zip(RULES, said, strict=True))
    print(COUNTS)


def scaled(images: np.ndarray) -> np.ndarray:
    """``(n, 1, 28, 28)`` float32 within 0..1."""
    return (images[:, None] / 255).astype(np.float32)


COUNTS: Counter[tuple[str, str]] = Counter()


def _judged(suite: dj.Suite, observation: dj.Observation, calibration: dj.Calibration, rule: str) -> dj.Verdict:
    return dj.judge(dj.measure(suite, observation), calibration, dj.JudgeSettings(rule=rule))


def _suite(victim: Path, mnist: np.lib.npyio.NpzFile) -> dj.Suite:
    x, y = (mnist["x_test"][:3000, ..., None] / 255).astype(np.float32), mnist["y_test"][:3000].astype(np.int64)
    model = dj.open_model(victim)
    training = (mnist["x_train"][:2000, ..., None] / 255).astype(np.float32)
    seeds = dj.select_seeds(model, x, y, n=300)
    options = {"neuron-corners": {"iterations": 150}}
    return dj.build_suite(model, seeds, ["pgd", "neuron-corners"], training_inputs=training, options=options)


if __name__ == "__main__":
    main()
