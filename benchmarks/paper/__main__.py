"""The paper's studies in small: ``python benchmarks/paper -o FOLDER [mnist|cifar10|spoken ...]``.

Makes the suite, the zoo and its power of each victim by the commands that a user types, draws the figures, and puts the
study's section into docs/why/results.md. What is in the folder already is not made again.
"""

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path

from plots import draw_radar, draw_roc
from studies import METRICS, STUDIES, run
from tables import section

DOCS = Path(__file__).parents[2] / "docs" / "why"
PAGE, FIGURES = "results.md", "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", choices=[*STUDIES, []], metavar="|".join(STUDIES), help="default: all")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data and victims/")
    arguments = parser.parse_args()
    for key in arguments.studies or STUDIES:
        folder = arguments.out / key
        commands = run(STUDIES[key], arguments.data.resolve(), folder)
        power, zoo = (json.loads((folder / name).read_text()) for name in ("power/power.json", "zoo/zoo.json"))
        models = [model for model in power["models"] if model["counts"]]
        draw_roc(models, METRICS, DOCS / FIGURES / f"{key}-roc.svg")
        draw_radar(models, METRICS, DOCS / FIGURES / f"{key}-radar.svg")
        shown = [_without_paths(line) for line in commands.lines]
        write(key, section(STUDIES[key], key, power, zoo, shown, FIGURES))
        print(f"{key}: {commands.seconds / 60:.1f} minutes in these commands", flush=True)


def write(key: str, parts: Iterable[str]) -> None:
    """Put a study's section where its mark stands in the page."""
    page = DOCS / PAGE
    start, end = f"<!-- {key} -->", f"<!-- end of {key} -->"
    text = page.read_text("utf-8")
    body = "\n\n".join(parts)
    if start not in text:
        raise SystemExit(f"{page}: expected the mark {start}, found none")
    page.write_text(re.sub(f"{start}.*{end}", lambda _: f"{start}\n{body}\n{end}", text, flags=re.DOTALL), "utf-8")


def _without_paths(line: str) -> str:
    # The victim lies where the data are, on every machine elsewhere.
    return re.sub(r"(?<= )'?/\S*/", "", line)


if __name__ == "__main__":
    main()
