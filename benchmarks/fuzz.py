"""Damage files of every kind that deepjudge reads: ``python benchmarks/fuzz.py --seconds 3600``.

What is no line of deepjudge's own, or takes too long, is printed, and its file is kept. The status is then 1.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from fuzzing import DefectError, attempt, attempts, corpus


def main() -> int:
    """Go on until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("defects"), help="folder for files that show a defect")
    asked = parser.parse_args()
    keep, tried, defects = asked.keep.absolute(), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        sys.path.insert(0, folder)
        readers = corpus(Path(folder))
        end = time.monotonic() + asked.seconds
        for kind, data in attempts(readers, asked.seed):
            if time.monotonic() > end:
                break
            tried[kind] += 1
            try:
                attempt(readers[kind], data, Path(folder) / "read")
            except DefectError as error:
                defects += 1
                keep.mkdir(parents=True, exist_ok=True)
                file = keep / f"{defects:04}-{kind.replace('/', '-')}"
                file.write_bytes(data)
                print(f"{kind}: {error} ({file})", flush=True)
    print(f"{sum(tried.values())} files of {len(tried)} kinds, {defects} defects")
    return int(defects > 0)


if __name__ == "__main__":
    sys.exit(main())
