"""Evidence for which layers to compare by default: ``python benchmarks/layers -o FOLDER [lenet5|lstm|... ...]``.

Trains copies and independents of several victims, makes corner cases for each tap alone, lets all models answer, and
prints how far apart copies and independents are. What is in the folder already is not made again.
"""

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch
from measuring import FACTORS, METRICS, measured, separation
from networks import NETWORKS
from training import train_all

from deepjudge_core.matching import Match


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="|".join(NETWORKS), help="default: all")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data and victims/")
    parser.add_argument("--train", action="store_true", help="train the models and no more")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # networks this small gain little by more
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = [
        "| network | m | match | tap | neurons reached | seconds | AUC | margin | copies | disguised | independents "
        "| undecided |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in arguments.networks or NETWORKS:
        network = NETWORKS[name]
        data = network.data(arguments.data, arguments.out)
        folder = arguments.out / name
        train_all(network, data, folder, arguments.data / "victims")
        if arguments.train:
            continue
        for factor, match in itertools.product(FACTORS, get_args(Match)):
            for tap, found in measured(network, data, folder, factor, match).items():
                reached = f"{found.reached} of {found.neurons}"
                start = f"| {name} | {factor:g} | {match} | {tap} | {reached} | {found.seconds:.0f} |"
                if not found.reached:
                    rows.append(f"{start} | | | | | |")
                    continue
                apart = separation(found.values)
                shares = " | ".join(f"{share:.1%}" for share in (*apart.accused.values(), apart.undecided))
                rows.append(f"{start} {listed(apart.areas)} | {listed(apart.margins)} | {shares} |")
    if not arguments.train:
        print(f"AUC and margin: {', '.join(METRICS)}\n", *rows, sep="\n")


def listed(values: Mapping[str, float]) -> str:
    """The values of the metrics, in their order."""
    return " ".join(f"{values[metric]:.2f}" for metric in METRICS)


if __name__ == "__main__":
    main()
