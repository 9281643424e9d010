"""What a person reads is plain English: no message, help text or page has one of the turns of phrase listed here.

The list holds what reads as translated, or has to be read twice. A line that means one of them is exempt if it carries
``english: REASON`` in a comment.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from places import ROOT

CODE = ("deepjudge_core", "adapters", "plugins", "examples")

# Where docstrings are shown, too: as help, or in tables of the documentation.
DOCSTRINGS = (
    "deepjudge_core/cli/commands/",
    "deepjudge_core/components/attack.py",
    "deepjudge_core/components/hooks.py",
    "deepjudge_core/components/kinds.py",
)


@dataclass(frozen=True)
class Turn:
    """A turn of phrase that is not used.

    Attributes:
        pattern: A regular expression that finds it.
        bad: A sentence that has it.
        better: The same, as it should be.
    """

    pattern: str
    bad: str
    better: str


_START = r"(?:^|(?<=[.;:] )|(?<=\| )|(?<=\A- ))"  # of a sentence, or of a part of one that could be a sentence

# What follows "where" if it means "if".
_SUBJECT = "it|they|there|these|those|no|none|such|some|all|honest|one|neither|either|that|this|only|few|"
_SUBJECT += r"distances|(?:an?|the) [\w ]+? (?:is|are|has|have)"

TURNS = (
    Turn(
        rf"{_START}[Oo]f (?!course)(?!\{{|\d)[^,.;:|]{{1,60}}, (?!and |or )",
        "Of honest models, few would get such a vote.",
        "Few honest models would get such a vote.",
    ),
    Turn(
        r"\bof (?:honest|these|those|such|the) [^,.;:|]{1,40}(?<!and) at most\b",
        "of honest models at most 1 %",
        "at most 1 % of honest models",
    ),
    Turn(
        r"(?<!there )\b(?:is|are|was|that|which) none\b(?! of)", "found a commitment that is none", "found another file"
    ),
    Turn(r"\bis none of\b", "which is none of its layers", "which is not one of its layers"),
    Turn(
        r"\b(?:is|are|was|be) (?:nothing |little )?said of\b",
        "what is said of a model",
        "what the report states about a model",
    ),
    Turn(
        r"\bsays? nothing of\b|\bsaid nothing of\b|\bsay nothing\b",
        "the controls say nothing",
        "the controls cannot decide",
    ),
    Turn(r"\bbeside\b", "the file beside it", "the file next to it"),
    Turn(r"\banew\b", "the file is written anew", "the file is rewritten"),
    Turn(r"\bby what (?!extent)|\b(?:of|from) what (?:is|was) \w+ed\b", "by what it is judged", "how it is judged"),
    Turn(
        r"\b(?:of|by|behind|on|in) whose\b",
        "layers of whose neurons places are found",
        "layers whose neurons can be located",
    ),
    Turn(
        r"\ball (?:that )?[\w ]{2,30} rests? on\b",
        "all that it rests on",
        "everything it depends on",
    ),
    Turn(
        r"\b(?:stand|stands|stood) (?:in|behind|beside|before|after|alone|above|below|there|by|first|under)\b",
        "the formula stands in the method",
        "see the formula in the method",
    ),
    Turn(
        rf"{_START}[Ww]hat (?:is|are|was|were|has|have) [^,.;:?]{{1,40}}? (?:is|are|was|goes|go)\b",
        "What is written is a bundle.",
        "The command writes a bundle.",
    ),
    Turn(
        r"\b[Ww]ho(?:so)?ever\b|(?:^|[.;:,] )[Ww]ho (?:has|is|wants|takes|trains|gives|makes)\b(?![^.;]*\?)",
        "Whoever has it checks it.",
        "Anyone who has it can check it.",
    ),
    Turn(
        rf"(?:[.;:,(]|\b(?:only|even|and|or|is|are|it|them|\w+s)) [Ww]here (?:{_SUBJECT})\b",
        "the bound, where distances are normal, where there are controls",
        "the bound, if distances are normal, if there are controls",
    ),
    Turn(r"\b(?:told|tells?) from\b", "what they are to be told from", "what they are compared with"),
    Turn(r"\b(?:within|in|beside|behind|into|from) one another\b", "arrays within one another", "nested arrays"),
    Turn(r"\bpassed over\b", "it is passed over", "it is skipped"),
    Turn(r"\bbut for\b", "the same but for the name", "the same except for the name"),
    Turn(r"\bas (?:it is|they are)(?=[,.;:)\]]|$)", "inputs are taken as they are", "inputs are used unchanged"),
    Turn(r"\bnothing but\b|\bnothing else than\b", "expected nothing but -o", "expected only -o"),
    Turn(r"\bno (?:more )?\w+ (?:is|are) left\b", "no budget is left", "the budget is used up"),
    Turn(r"\ba word (?:about|of|on)\b|\bwithout a word\b", "a word about the table", "about the table"),
    Turn(r"\bthat there (?:is|are|was|were|could|can)\b", "the names that there are", "the available names"),
    Turn(r"\botherwise than\b|\bothers than\b", "it answers otherwise than before", "its answers differ from before"),
    Turn(r"\bas (?:was|were) asked for\b", "as was asked for", "as requested"),
    Turn(r"\bin (?:the )?place of\b", "in place of the mean", "instead of the mean"),
    Turn(
        r"\b(?:is|are|was|were) to be (?!expected|sure)\w+ed\b", "suspects are to be judged", "suspects will be judged"
    ),
    Turn(r"\b(?:has|have|had) to (?:have|be) \w+ed\b", "who has to have signed it", "who must have signed it"),
    Turn(
        r"\bsuch as (?:are|is|differ|have|do)\b|\bsuch as of\b",
        "controls such as differ much",
        "controls that differ a lot",
    ),
    Turn(r"\bmend(?:s|ed|ing)?\b", "the line says what mends it", "the line says how to fix it"),
    Turn(r"\b(?:no|not an) acquittal\b", "independent is no acquittal", "independent does not prove innocence"),
    Turn(r"\b(?:that|which) (?:was|were) not foreseen\b", "an error that was not foreseen", "an unexpected error"),
    Turn(
        r"\b(?:keeps?|kept|keeping) to (?:its|their)\b",
        "a model that keeps to its answers",
        "a model that gives the same answers each time",
    ),
    Turn(r"\bnobody (?:is|knows|says|can|has)\b", "nobody knows the classes", "the classes are unknown"),
    Turn(r"\b(?:is|are) (?:not )?looked (?:at|for|into)\b", "layers are not looked at", "layers are not examined"),
    Turn(
        r"\b(?:leads?|goes|came|come|comes) from where\b",
        "it comes from where the victim comes from",
        "it shares an ancestor with the victim",
    ),
    Turn(
        r"\bof other [\w ]+ than\b",
        "of other classes than the victim",
        "with classes that differ from the victim's",
    ),
)
FOUND = tuple((re.compile(turn.pattern), turn) for turn in TURNS)
EXEMPT = re.compile(r"english: \S")


def turns_in(text: str) -> list[str]:
    """The turns of phrase found in a text, as it has them."""
    return [match.group().strip() for pattern, _ in FOUND for match in pattern.finditer(text)]


def written(node: ast.AST) -> str | None:
    """The text of a literal, with `{}` for what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def texts_of_code(path: Path) -> Iterator[tuple[int, int, str]]:
    """First line, last line and text of each literal of three words or more; docstrings only if they are shown."""
    tree = ast.parse(path.read_text("utf-8"))
    shown = path.relative_to(ROOT).as_posix().startswith(DOCSTRINGS)
    left = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            left.update(node.values)
        module = isinstance(node, ast.Module)
        for statement in getattr(node, "body", None) if isinstance(getattr(node, "body", None), list) else ():
            if isinstance(statement, ast.Expr) and (module or not shown):
                left.add(statement.value)
    for node in ast.walk(tree):
        text = None if node in left else written(node)
        if text is not None and len(text.split()) > 2:
            assert isinstance(node, ast.expr)
            yield node.lineno, node.end_lineno or node.lineno, " ".join(text.split())


def texts_of_page(path: Path) -> Iterator[tuple[int, int, str]]:
    """First line, last line and text of each paragraph, cell or line of a Markdown page, without its code."""
    start, lines, code = 0, [], False
    for number, line in enumerate((*path.read_text("utf-8").split("\n"), ""), start=1):
        fence = line.strip().startswith("```")
        code ^= fence
        if code or fence or not line.strip() or line.startswith(("    ", "<!-- [[", "|", "#", "- ")):
            yield start, number - 1, " ".join(lines)
            lines = []
        if code or fence or not line.strip() or line.startswith(("    ", "<!-- [[")):
            continue
        if not lines:
            start = number
        lines.append(re.sub(r"`[^`]*`", "``", line.strip()))


def texts_of_template(path: Path) -> Iterator[tuple[int, int, str]]:
    """Line by line, what a template has outside of tags."""
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        yield number, number, re.sub(r"<[^>]*>|\{[{%#].*?[}%#]\}|\.[\w-]+", " ", line).strip()


KINDS = {".py": texts_of_code, ".md": texts_of_page, ".jinja": texts_of_template}


def faults(path: Path) -> list[str]:
    lines = path.read_text("utf-8").split("\n")
    return [
        f"{path.relative_to(ROOT)}:{first}: {turn!r} in {text!r:.200}"
        for first, last, text in KINDS[path.suffix](path)
        if not any(EXEMPT.search(line) for line in lines[first - 1 : last])
        for turn in turns_in(text)
    ]


FILES = sorted(
    {
        *(p for shelf in CODE for kind in ("py", "jinja") for p in (ROOT / shelf).rglob(f"*.{kind}")),
        *ROOT.glob("*.md"),
        *(p for folder in ("docs", "examples", "deepjudge_core", "benchmarks") for p in (ROOT / folder).rglob("*.md")),
    }
)


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: turn.bad)
def test_each_turn_is_found_and_its_better_form_is_not(turn: Turn) -> None:
    assert re.search(turn.pattern, turn.bad)
    assert not turns_in(turn.better)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_person_reads_is_plain_english(path: Path) -> None:
    found = faults(path)
    assert not found, "\n".join(found)
