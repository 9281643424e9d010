"""Checks what the wheel said of the suspects, and that it is installed as it should be; run by its environment.

It is run in the folder that has the report.
"""

import json
import sysconfig
from pathlib import Path

import deepjudge_core

EXPECTED = {"suspects/near.onnx": "copy", "suspects/honest.onnx": "independent"}
SHELVES = ("adapters", "plugins", "tests", "examples", "benchmarks")


def main() -> None:
    """Fail, with what was expected and what was found, unless all holds.

    Raises:
        SystemExit: With that line.
    """
    report = json.loads(Path("report.json").read_text("utf-8"))
    decisions = {suspect["path"]: suspect["decision"] for suspect in report["suspects"]}
    if decisions != EXPECTED:
        raise SystemExit(f"expected {EXPECTED}, found {decisions}")
    installed = Path(sysconfig.get_path("purelib"))
    if installed not in Path(deepjudge_core.__file__).parents:
        raise SystemExit(f"expected deepjudge_core in {installed}, found {deepjudge_core.__file__}")
    shelves = [name for name in SHELVES if (installed / name).exists()]
    if "near.onnx" not in Path("report.html").read_text("utf-8"):
        raise SystemExit("expected a page of the suspects, found another")
    if shelves:
        raise SystemExit(f"expected only deepjudge_* packages in {installed}, found {', '.join(shelves)}")


if __name__ == "__main__":
    main()
