"""Trains small transformers and copies of them, and says what the comparison of weights tells apart.

    python benchmarks/weights -o OUT [--train | --tables]

The models go to OUT, one folder each, and what was measured of them to OUT/measured.json. What is there is not made
again.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples")]

import torch  # noqa: E402
from measuring import measure_all  # noqa: E402
from tables import print_tables  # noqa: E402
from training import make_all  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("weights"), help="(default: weights)")
    parser.add_argument("--train", action="store_true", help="make the models, and measure nothing")
    parser.add_argument("--tables", action="store_true", help="measure the models that are there")
    settings = parser.parse_args()
    torch.set_num_threads(1)  # networks this small gain nothing by more
    if not settings.tables:
        make_all(settings.out)
    if not settings.train:
        print_tables(measure_all(settings.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
