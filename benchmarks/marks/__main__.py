"""What each watermark and fingerprint tells apart: a LeNet-5 marked, stolen in every way, and independents.

    python benchmarks/marks --data FOLDER -o OUT [--make | --tables] [--only NAME ...]

FOLDER holds mnist.npz, fashion_mnist.npz and victims/mnist_lenet5.h5. Everything is made by the commands that a user
types, and kept in OUT: what is there is not made again. The tables of all keys go into docs/why/marks.md.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from making import Study, make_all  # noqa: E402
from measuring import measure_all, measure_by_default  # noqa: E402
from plan import PLANS  # noqa: E402
from tables import tables_of, write  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(default: ../shared/data)")
    parser.add_argument("-o", "--out", type=Path, default=Path("marks"), help="(default: marks)")
    parser.add_argument("--independents", type=int, default=150, help="models that know no key (default: 150)")
    parser.add_argument("--make", action="store_true", help="make the models, and measure nothing")
    parser.add_argument("--tables", action="store_true", help="measure the models that are there")
    parser.add_argument("--only", nargs="*", default=[plan.name for plan in PLANS], help="keys (default: all)")
    arguments = parser.parse_args()
    plans = [plan for plan in PLANS if plan.name in arguments.only]
    study = Study(arguments.out.resolve(), arguments.data.resolve(), arguments.independents)
    if not arguments.tables:
        make_all(study, plans)
    if not arguments.make:
        by_default = measure_by_default(study) if study.extracted.exists() else None
        text = tables_of(measure_all(study, plans), by_default)
        print(text)
        if len(plans) == len(PLANS):
            write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
