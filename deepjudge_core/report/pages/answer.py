"""The first screen of an audit's page: the question, the answers, how sure they are, and what they rest on."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec import UNSET

from deepjudge_core.components.values import Group
from deepjudge_core.judging.ranking import ratio
from deepjudge_core.report.documents import AuditReport, ControlEntry, SuspectEntry
from deepjudge_core.report.pages.document import Block, Bullets, Cell, Line, Name, Paragraph, Section, Table
from deepjudge_core.report.pages.listing import DETAILED, MANY, TALL, least_p_of, names_of, numbered_by_rank, votes_of
from deepjudge_core.report.pages.nextsteps import next_steps
from deepjudge_core.report.pages.parts import base, below_common, decided, figure, name, table_of
from deepjudge_core.report.pages.wording import answer, kind_of, limits, rates, sentence, sureness
from deepjudge_core.text import counted

_CASES = {
    "clean": "ordinary inputs that the victim classifies correctly (seeds)",
    "adversarial": "changed so that the victim errs (adversarial cases)",
    "corners": "that drive single neurons of the victim to extremes (corner cases)",
    "mistakes": "ordinary inputs that the victim gets wrong (mistakes)",
}


def question(report: AuditReport) -> Line:
    """What the page answers."""
    victim = Name(base(report.victim.path))
    if len(report.suspects) == 1:
        return ("Is ", Name(names_of(report)[report.suspects[0].path]), " a copy of ", victim, "?")
    return ("Is any of these models a copy of ", victim, "?")


def lead(report: AuditReport) -> str:
    """The answer in a sentence or two."""
    unjudged = sum(one.unjudged for one in report.skipped or ())
    if not unjudged:
        return _answers(report)
    which = "which may hold a model, was" if unjudged == 1 else "which may hold models, were"
    return f"{_answers(report)} {counted(unjudged, 'other file')}, {which} not judged."


_OTHERWISE: Mapping[str | None, tuple[str, str]] = {
    "descent": ("both models began with the same weights", "began with the victim's first weights"),
    "data": ("it was trained on the same data", "learnt from the same data"),
}
"""What else may be true of a copy, by what it points to: of the only suspect, and of one or several among others."""


def _answers(report: AuditReport) -> str:
    count = Counter(suspect.decision for suspect in report.suspects)
    of = len(report.suspects)
    if not of:
        return "No model was judged."
    otherwise = Counter(suspect.points_to for suspect in report.suspects if suspect.points_to in _OTHERWISE)
    if of == 1:
        return {
            "copy": next(
                (f"It is a copy, or {_OTHERWISE[one][0]}." for one in otherwise), "Yes, it appears to be a copy."
            ),
            "independent": "No sign of copying was found.",
            "inconclusive": "The comparison does not decide.",
            "failed": "It could not be tested.",
        }[report.suspects[0].decision]
    said = []
    if count["copy"]:
        copies = count["copy"] - otherwise.total()
        if copies:
            said.append(
                f"Yes: {copies} of {of} models {'appears to be a copy' if copies == 1 else 'appear to be copies'}."
            )
        for one, number in otherwise.items():
            are = "is a copy" if number == 1 else "are copies"
            said.append(f"{number} of {of} models {are}, or {_OTHERWISE[one][1]}.")
        if count["independent"]:
            said.append(f"For {count['independent']}, no sign of copying was found.")
    elif count["independent"]:
        said.append(f"No sign of copying was found for {count['independent']} of {of} models.")
    if count["inconclusive"]:
        whom = f"{count['inconclusive']}" if said else f"{count['inconclusive']} of {of} models"
        said.append(f"For {whom}, the comparison does not decide.")
    if count["failed"]:
        said.append(f"{count['failed']} could not be tested." if said else f"None of {of} models could be tested.")
    return " ".join(said)


def answer_section(report: AuditReport) -> Section:
    """The first screen: the answer for each model, what it does not show, what to do next, and what it rests on."""
    numbered = numbered_by_rank(report)
    blocks: list[Block] = []
    if len(numbered) > MANY:
        blocks += [_ranking(numbered), Paragraph(_RANKED), _reasons(numbered, report)]
    elif numbered:
        head = ["model", "answer", "why", "how sure"]
        blocks.append(Table(_EACH, head, list(_in_sentences(numbered, report))))
    said = rates(report)
    parts = [
        Section("What this does not show", "limits", [Bullets(limits(report))]),
        Section("What to do next", "next", next_steps(report)),
        Section("What this rests on", "rests", [Bullets([*_rests_on(report)])]),
        Section("What the rates mean", "rates", [Bullets(said)] if said else []),
    ]
    parts = [part for part in parts if part.blocks]
    return Section("Answer", "verdicts", blocks, parts, columns=True)


_UNSURE = "Not known."
_EACH = "The answer for each model"
_RANKED = (
    "Most similar first. Relative distance: a suspect's distance from the victim divided by the threshold, as a median "
    "over the measurements of behaviour or over those of layers, whichever is smaller. 0 is the victim itself; at 1 or "
    "less it is as close as copies are."
)


def _in_sentences(numbered: Sequence[tuple[int, SuspectEntry]], report: AuditReport) -> Iterator[list[Cell]]:
    # What was said of one model is not said again of the next.
    names, said = names_of(report), dict[str, str]()
    for _, suspect in numbered:
        # That it does not decide stands in the cell before.
        open_by = suspect.reason if suspect.decision == "inconclusive" else None
        why, sure = sentence(open_by) if open_by else answer(suspect, report), sureness(suspect, report) or _UNSURE
        before, likewise = said.get(why), sure != _UNSURE and said.get(sure)
        said |= {one: suspect.path for one in (why, sure) if one not in said}
        shown: list[Line] = [_as_for(names, before) or why, _as_for(names, likewise or None) or sure]
        if before and before == likewise:
            shown[1] = "Likewise."
        cells = [Cell(line, "prose") for line in shown]
        yield [name(names[suspect.path]), decided(suspect.decision, suspect.points_to), *cells]


def _as_for(names: Mapping[str, str], path: str | None) -> Line:
    return ("As for ", Name(names[path]), ".") if path else ""


def _ranking(numbered: Sequence[tuple[int, SuspectEntry]]) -> Table:
    suspects = [suspect for _, suspect in numbered]
    names = below_common(suspect.path for suspect in suspects)
    targets = [f"suspect-{place}" if rank < DETAILED else None for rank, (place, _) in enumerate(numbered)]
    return table_of(
        _EACH,
        {
            "model": [
                Cell(Name(names[suspect.path]), "name", target)
                for (_, suspect), target in zip(numbered, targets, strict=True)
            ],
            "No.": [Cell(str(place), "number") for place, _ in numbered],
            "answer": [decided(suspect.decision, suspect.points_to) for suspect in suspects],
            "say copy": [Cell(votes_of(suspect), "number") for suspect in suspects],
            "smallest p": [Cell(least_p_of(suspect), "number") for suspect in suspects],
            "relative distance": [figure(ratio(suspect)) for suspect in suspects],
        },
        tall=len(suspects) > TALL,
        dense=True,
    )


def _reasons(numbered: Sequence[tuple[int, SuspectEntry]], report: AuditReport) -> Table:
    # Each sentence once: most hold for several.
    said: dict[str, list[str]] = {}
    for place, suspect in numbered:
        said.setdefault(answer(suspect, report), []).append(str(place))
    rows = [[Cell(why, "prose"), Cell(", ".join(places), "prose")] for why, places in said.items()]
    return Table("Why", ["why", "models by their numbers"], rows)


def _rests_on(report: AuditReport) -> Iterator[Line]:
    cases = report.suite.cases.named()
    listed = "; ".join(f"{count} {_CASES[kind]}" for kind, count in cases.items() if count)
    given = ", made for this victim and given to every model"
    if any(suspect.sequential for suspect in report.suspects):
        given = ", made for this victim; a suspect was asked only as many as it took to decide"
    if listed:
        yield f"{counted(sum(cases.values()), 'test input')}{given}: {listed}."
    weights = report.suite.weights
    if weights:
        picked = sum(layer.picked for layer in weights.layers)
        yield (
            f"The weights of {counted(picked, 'neuron')} in {counted(len(weights.layers), 'layer')} of the victim. "
            "Weights are read from the files, and no model is run for it."
        )
    groups = Counter(metric.group for metric in report.metrics.values())
    compared: Mapping[Group, str] = {
        "black-box": "of behaviour (a model's answers)",
        "white-box": "of layers (the outputs of its neurons)",
        "weights": "of weights",
    }
    if report.suite.keys:
        trials = sum(key.trials for key in report.suite.keys)
        yield f"{counted(trials, 'trial')} of {counted(len(report.suite.keys), 'secret key')} of the owner's."
    del groups["marks"]
    each = [f"{groups[group]} {what}" for group, what in compared.items() if groups[group]]
    if each:
        yield (
            f"{counted(sum(groups.values()), 'measurement')} of the distance between a suspect and the victim: ",
            *(_enumerated(each), ". The rule ", Name(report.rule), " makes one answer of them."),
        )
    elif report.suspects:
        yield ("The labels that a suspect gives, case by case, judged by the rule ", Name(report.rule), ".")
    controls = report.calibration.controls
    if controls:
        yield (
            f"{counted(len(controls), 'control')}: models that are said to be independent of the victim. They show "
            f"how close independent models come to it. {_kinds(controls)}{_alike(report)}"
        )
    else:
        known = {m.group for one in report.suspects for m in one.metrics.values() if m.log10_p is not UNSET}
        needs = ". The order of neurons needs none" if "weights" in known else ""
        needs += ". Keys by design need none" if "marks" in known else ""
        yield f"No controls (models that are independent of the victim), so distances prove nothing here{needs}."


def _enumerated(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _kinds(controls: Sequence[ControlEntry]) -> str:
    kinds = Counter(map(kind_of, controls))
    if set(kinds) == {"unknown"}:
        return "Their kind (stratum) is unknown."
    return f"Their kinds (strata): {', '.join(f'{count} {kind}' for kind, count in kinds.items())}."


def _alike(report: AuditReport) -> str:
    if report.calibration.effective is UNSET:
        return ""
    return (
        f" They count as {report.calibration.effective}: some answer nearly as others do, and show no more than these."
    )


def drawn_section(report: AuditReport) -> Iterator[Section]:
    """The answers by the cases that nobody could choose, if there are any."""
    challenge = report.suite.challenge
    judged = [suspect for suspect in report.suspects if suspect.drawn]
    if not challenge or not judged:
        return
    names, clean = names_of(report), report.suite.cases.clean
    rows = [
        [
            name(names[suspect.path]),
            decided(suspect.drawn.decision, suspect.drawn.points_to),
            Cell(sentence(suspect.drawn.reason) if suspect.drawn.reason else votes_of(suspect.drawn), "prose"),
            decided(suspect.decision, suspect.points_to),
        ]
        for suspect in judged
        if suspect.drawn
    ]
    blocks: list[Block] = [
        Paragraph(
            f"{clean - challenge.chosen} of {clean} seeds, and all that is random of the cases made from them, follow "
            "from a value that somebody else gave after the commitment. So the owner could not choose these cases. By "
            "them alone the answers are:"
        ),
        Table("By the drawn cases alone", ["model", "drawn cases", "votes for copy, or why", "all cases"], rows),
    ]
    yield Section("Cases that nobody could choose", "drawn", blocks)
