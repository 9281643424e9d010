"""What commands take, from a fresh process on: the help, the list of plugins, one small suspect."""

import compileall
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from networks import Data
from suspects import SAVERS, audit
from table import Row
from timing import cost_of_command, race

from deepjudge_core.suites.suite import save_suite

WORDS = (sys.executable, "-c", "import sys; from deepjudge_core.cli.main import main; sys.exit(main())")
CODE = [Path(__file__).parents[2] / folder for folder in ("deepjudge_core", "adapters", "plugins")]
NO_COPY, COPY, INCONCLUSIVE = 0, 1, 3  # exit statuses


def commands(data: Data) -> Iterator[Row]:
    """The whole of each, with Python's own start."""
    for folder in CODE:  # as pip does; some environments keep Python from doing so when it imports
        compileall.compile_dir(folder, quiet=1)
    suite = data.scratch / "suite.safetensors"
    save_suite(suite, audit(data.scratch)[0])
    suspect = data.scratch / "one.onnx"
    SAVERS["onnx"](99, suspect)
    runs = {
        "`deepjudge --help`": ((*WORDS, "--help"), 0.25),
        "`deepjudge plugins`": ((*WORDS, "plugins"), 0.25),
        "`deepjudge judge`, one small ONNX suspect": ((*WORDS, "judge", str(suite), str(suspect)), 0.75),
    }
    accepted = (NO_COPY, COPY, INCONCLUSIVE)
    python = (sys.executable, "-c", "import numpy")
    found = race(
        {
            "numpy": partial(cost_of_command, python),
            **{what: partial(cost_of_command, words, accepted) for what, (words, _) in runs.items()},
        }
    )
    for what, (_, goal) in runs.items():
        detail = f"`import numpy` alone {found.median('numpy').processor:.2g} s" if "help" in what else ""
        yield Row(what, found.median(what), goal, unit="s", detail=detail)
