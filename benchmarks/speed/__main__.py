"""Every step against its bare limit and its best peer: ``python benchmarks/speed --data FOLDER [part ...]``.

Each part's rows are printed, and written into the table of ``benchmarks/README.md``. Everything computes on one thread.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Before anything is imported that starts threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ[_name] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parent)]

import attacks  # noqa: E402
import commands  # noqa: E402
import corners  # noqa: E402
import fleets  # noqa: E402
import judging  # noqa: E402
from networks import Data  # noqa: E402
from table import HEAD, write  # noqa: E402

PARTS = {
    "pgd": attacks.pgd,
    "gradients": attacks.gradients,
    "cw": attacks.cw,
    "corners": corners.corners,
    "judge": judging.judge,
    "commands": commands.commands,
    "fleet-onnx": fleets.onnx,
    "fleet-pt2": fleets.pt2,
    "fleet-keras": fleets.keras,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="|".join(PARTS), help="default: all")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of mnist.npz and victims/")
    parser.add_argument("--print", action="store_true", help="print the rows, and leave the page as it is")
    arguments = parser.parse_args()
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        data = Data(arguments.data, Path(scratch))
        for part in arguments.parts or PARTS:
            rows = []
            for row in PARTS[part](data):
                rows.append(row)
                print(row.line(), flush=True)
            if not arguments.print:
                write(rows)


if __name__ == "__main__":
    main()
