"""Evidence for which layers to compare, and how: ``python benchmarks/layers -o FOLDER [lenet5|lstm|... ...]``.

Trains copies and independents of several victims, makes corner cases for each tap alone, lets all models answer, and
prints how far apart copies and independents are, their neurons compared by place and matched. What is in the folder
already is not made again.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch
from measuring import FACTORS, KINDS, METRICS, Separation, measured, separation
from networks import NETWORKS, Data, Network
from training import train_all

from deepjudge_core.judging.neurons import Match

MATCHES: tuple[Match, ...] = get_args(Match)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="|".join(NETWORKS), help="default: all")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data and victims/")
    parser.add_argument("--train", action="store_true", help="train the models and no more")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # networks this small gain little by more
    arguments.out.mkdir(parents=True, exist_ok=True)
    heads = ["network", "m", "tap", "neurons reached", "seconds"]
    heads += [f"margin, {match}" for match in MATCHES]
    heads += [f"{kind}, {' / '.join(MATCHES)}" for kind in (*KINDS, "undecided")]
    rows = [heads, ["---"] * len(heads)]
    for name in arguments.networks or NETWORKS:
        network = NETWORKS[name]
        data = network.data(arguments.data, arguments.out)
        folder = arguments.out / name
        train_all(network, data, folder, arguments.data / "victims")
        if not arguments.train:
            rows += cells(name, network, data, folder)
    if not arguments.train:
        print(f"Margins of {', '.join(METRICS)}\n", *(f"| {' | '.join(row)} |" for row in rows), sep="\n")


def cells(name: str, network: Network, data: Data, folder: Path) -> Iterator[list[str]]:
    """The rows of a network: one for each m and tap."""
    for factor in FACTORS:
        ways = [measured(network, data, folder, factor, match) for match in MATCHES]
        for tap, at_tap in ways[0].items():
            row = [name, f"{factor:g}", tap, f"{at_tap.reached} of {at_tap.neurons}", f"{at_tap.seconds:.0f}"]
            if at_tap.reached:
                row += results([separation(way[tap].values) for way in ways])
            yield row


def results(ways: Sequence[Separation]) -> Iterator[str]:
    """What was found with neurons compared by place, and matched."""
    for way in ways:
        yield listed(way.margins)
    for kind in KINDS:
        yield " / ".join(f"{100 * way.accused[kind]:.1f}" for way in ways) + " %"
    yield " / ".join(f"{100 * way.undecided:.1f}" for way in ways) + " %"


def listed(values: Mapping[str, float]) -> str:
    """The values of the metrics, in their order."""
    return " ".join(f"{values[metric]:.2f}" for metric in METRICS)


if __name__ == "__main__":
    main()
