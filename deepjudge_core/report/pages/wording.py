"""What a report says of a model that was judged: the answer, how sure it is, and what the rates in it mean.

Each is said in one place: the page, Markdown, model cards and SARIF take their sentences from here.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import UNSET, UnsetType

from deepjudge_core.components.strata import SAME_ARCHITECTURE, with_architecture
from deepjudge_core.judging.exact import power_of_ten
from deepjudge_core.judging.verdict import in_words, open_layers
from deepjudge_core.report.documents import AuditReport, ControlEntry, SettingEntry, SuspectEntry
from deepjudge_core.report.pages import marks
from deepjudge_core.text import capital, counted, shortened

LONGEST_REASON = 200
"""Characters of what a library says of a model that cannot be opened, where many models share a page."""
DECISIONS = ("copy", "independent", "inconclusive", "failed")
ANSWERS: Mapping[str, str] = {
    "copy": "copy",
    "independent": "no sign of copying found",
    "inconclusive": "undecided",
    "failed": "not tested",
}
"""What a decision is called on the page."""


def called(decision: str, points_to: str | None) -> str:
    """What a decision is called on the page, where it says no more than what was found.

    Args:
        decision: Copy, independent, inconclusive or failed.
        points_to: What a copy points to.
    """
    return in_words(decision, points_to) if points_to in ("descent", "data") else ANSWERS[decision]


SIDES: Mapping[str, str] = {
    "black-box": "behaviour",
    "white-box": "layers",
    "joint": "behaviour and layers together",
    "weights": "weights",
    "marks": "secret keys",
}
"""What is compared in each of the settings."""
_LEAST = 1e-6  # no distribution is known so well that less could be said
_STRENGTHS = ((0.001, "Very strong"), (0.01, "Strong"), (0.05, "Moderate"))  # up to which p-value, as statistics books


def percent(share: float) -> str:
    """A share, without zeros at its end."""
    return f"{100 * share:.3g} %"


def odds(p_value: float) -> str:
    """A probability, as people say it, never less than it is."""
    if p_value < _LEAST:
        return "1 in 1,000,000"
    return f"1 in {int(1 / p_value):,}" if p_value <= 0.5 else f"{math.ceil(100 * p_value)} %"


def probability(p_value: float | None, log10_p: float | UnsetType = UNSET) -> str:
    """A p-value as it stands in tables and sentences.

    Args:
        p_value: The value.
        log10_p: Its logarithm to base 10, where it may be too small for a number.
    """
    if p_value is None:
        return "-"
    if log10_p is not UNSET:
        return power_of_ten(log10_p)
    if p_value < _LEAST:
        return f"< {_LEAST:.6f}"
    return np.format_float_positional(p_value, precision=3, unique=False, fractional=False, trim="-")


def sentence(text: str) -> str:
    """A clause as a sentence of its own."""
    whole = capital(text.strip())
    return whole if whole.endswith((".", "?", "!")) else f"{whole}."


def verdict(suspect: SuspectEntry, report: AuditReport) -> str:
    """All that is said of one model, without its name: the answer, why, and how sure it is."""
    decided = suspect.decision in ("copy", "independent")
    label = sentence(called(suspect.decision, suspect.points_to)) if decided else ""
    return " ".join(filter(None, (label, answer(suspect, report), sureness(suspect, report))))


def answer(suspect: SuspectEntry, report: AuditReport | None = None) -> str:
    """Why the answer is what it is, in a sentence or two without the model's name.

    Args:
        suspect: The suspect.
        report: The whole, where there is one.
    """
    reason = suspect.reason or ""
    if suspect.decision == "failed":
        return f"It could not be tested: {shortened(failing(suspect), LONGEST_REASON).rstrip('.')}."
    if suspect.decision == "inconclusive":
        return f"The comparison does not decide: {reason.rstrip('.')}."
    if suspect.decision == "copy":
        return _is_fact(suspect) or _in_all(suspect, report)
    return " ".join(filter(None, (_unlikeness(suspect), marks.silent(suspect, report) if report else "")))


def _in_all(suspect: SuspectEntry, report: AuditReport | None) -> str:
    # What keys say, and what else does.
    keys = marks.told(suspect, report) if report else ""
    others = any(s.decision == "copy" for name, s in suspect.settings.named().items() if name != "marks")
    if not keys or not report:
        return _likeness(suspect)
    if others:
        return f"{_likeness(suspect)} {keys}"
    apart = [SIDES[name] for name, s in suspect.settings.named().items() if s.decision == "independent"]
    rest = f" Its {_listed(apart)} alone would not set it apart from independent models." if apart else ""
    return f"{keys} {marks.meaning(suspect)}{rest}"


def failing(suspect: SuspectEntry) -> str:
    """Why a model could not be tested, without its path, so that the same is said of several in the same words."""
    return (suspect.reason or "").removeprefix(f"{suspect.path}: ")


def _is_fact(suspect: SuspectEntry) -> str:
    reason = suspect.reason if suspect.decision == "copy" else None
    return f"It is the victim itself, in the same or another file format: {reason.rstrip('.')}." if reason else ""


def _likeness(suspect: SuspectEntry) -> str:
    behaviour, layers = (suspect.settings.named()[side].decision for side in ("black-box", "white-box"))
    if suspect.points_to == "descent":
        likewise = (
            " Its behaviour is also closer to the victim's than that of independent models."
            if behaviour == "copy"
            else ""
        )
        return (
            f"{_found_in_weights(suspect)} So its weights descend from the victim's, or both were trained from the "
            f"same first weights or the same public model. The weights alone do not tell which.{likewise}"
        )
    taken = suspect.points_to in ("weights", "weights-changed-behaviour")
    by_weights = suspect.settings.weights and suspect.settings.weights.decision == "copy"
    if taken and by_weights and layers != "copy":
        changed = ", with its behaviour changed since" if suspect.points_to != "weights" else ""
        return (
            f"It appears to contain the victim's weights{changed}: they share more with the victim's than what other "
            "models made from the same ancestor have in common with it. That is also so if both were made from a later "
            "model than the ancestor that was named."
        )
    if suspect.points_to == "weights":
        closer = "its behaviour and its layers are" if behaviour == "copy" else "its layers are"
        return (
            "It appears to contain the victim's weights (the numbers that training gave it), perhaps trained further "
            "(fine-tuned), thinned out (pruned) or converted: "
            f"{closer} closer to the victim's than those of independent models."
        )
    if suspect.points_to == "weights-changed-behaviour":
        return (
            "It appears to contain the victim's weights, with its behaviour changed since: its layers are closer to "
            "the victim's than those of independent models, its behaviour is not."
        )
    if suspect.points_to == "behaviour":
        closer = "It behaves more like the victim than independent models do"
        values = [metric.value for metric in suspect.metrics.values() if metric.group == "white-box"]
        why = open_layers(layers, values)
        if why:  # it may well be a copy of the weights
            return f"{closer}. Whether it also contains the victim's weights is open: {why}."
        return (
            f"{closer}, although its layers do not resemble the victim's: it appears to have been trained on the "
            "victim's answers (extraction or distillation)."
        )
    if suspect.points_to in marks.MEANINGS:
        return f"It carries the owner's secret key. {marks.MEANINGS[suspect.points_to]}"
    return "It is closer to the victim than independent models are, all measurements taken together."


def _found_in_weights(suspect: SuspectEntry) -> str:
    # What an exact test found is the first clause of the statement.
    weights = suspect.settings.weights
    exact = any(metric.vote and metric.log10_p is not UNSET for metric in suspect.metrics.values())
    if weights and weights.statement and exact:
        found = weights.statement.partition(";")[0].partition(" (")[0]
        return sentence(f"{found}, which independent training hardly ever brings about")
    return "Its weights are closer to the victim's than those of independent models."


def _unlikeness(suspect: SuspectEntry) -> str:
    settings = suspect.settings.named()
    if settings["black-box"].decision is None and settings["white-box"].decision is None:
        if "joint" not in settings:
            return "Its weights do not set it apart from independent models. Its behaviour was not compared."
        return "All measurements taken together do not set it apart from independent models."
    sides = [settings[name].decision for name in ("black-box", "white-box", "weights") if name in settings]
    if sides == ["independent"] * 3 and not suspect.reason:
        return "Its behaviour, its layers and its weights do not set it apart from independent models."
    return f"{_behaves_unlike(suspect)}{_weighs_unlike(suspect)}"


def _weighs_unlike(suspect: SuspectEntry) -> str:
    weights = suspect.settings.weights
    if weights and weights.decision == "independent":
        return " Nor do its weights."
    return " Its weights are no evidence either way." if weights else ""


def _behaves_unlike(suspect: SuspectEntry) -> str:
    settings = suspect.settings.named()
    if settings["white-box"].decision is None:
        return (
            "Its behaviour does not set it apart from independent models. This was judged by behaviour alone: its "
            "layers could not be compared."
        )
    if settings["black-box"].decision is None:
        return "Its layers do not set it apart from independent models. Its behaviour was not compared."
    return "Neither its behaviour nor its layers set it apart from independent models." + (
        f" {sentence(suspect.reason)}" if suspect.reason else ""
    )


def sureness(suspect: SuspectEntry, report: AuditReport | None = None) -> str:
    """How strong the evidence is, in words and numbers; what the numbers mean, :func:`rates` says once for all.

    Args:
        suspect: The suspect.
        report: The whole, where there is one.
    """
    if suspect.decision in ("inconclusive", "failed"):
        return ""
    if _is_fact(suspect):
        return "Certain: this is a direct comparison, and rests on no statistics."
    said = " ".join(_evidence(suspect, report))
    doubt = suspect.reason if suspect.decision == "copy" else None
    doubts = dict.fromkeys(text for text in (doubt, suspect.unsteady) if text)
    return " ".join([said, *(f"Caution: {text.rstrip('.')}." for text in doubts)])


def _evidence(suspect: SuspectEntry, report: AuditReport | None) -> Iterator[str]:
    named = suspect.settings.named()
    decided = {name: s for name, s in named.items() if s.decision in ("copy", "independent") and name != "marks"}
    keys = marks.accusing(suspect, report) if report else []
    if report:
        yield from marks.strength(keys, report, _log_strength)
    if keys and not any(s.decision == "copy" for s in decided.values()):
        decided = {}  # what does not accuse makes nobody surer
    p_values = _p_values(decided)
    if p_values:
        (name, _), *others = p_values.items()
        found = [f"{_models(decided[name])} this close by {SIDES[name]} ({_p_of(decided[name])})"]
        found += [f"{_odds_of(decided[side])} by {SIDES[side]} ({_p_of(decided[side])})" for side, _ in others]
        yield f"{_strength(suspect, min(p_values.values()))}: at most {', '.join(found)}."
        if suspect.points_to == "descent":
            yield "Honest models that began with the victim's first weights, or the same public model, come as close."
    votes = [_votes(name, suspect) for name in decided if name not in p_values]
    if votes and not p_values:
        yield _agreement(suspect, votes)
        yield from _silent(suspect)
    elif votes:
        yield f"Measurements that say copy: {', '.join(said for _, _, said in votes)}."
    if suspect.sequential:
        asked = suspect.sequential
        yield f"It was asked {asked.queries} of at most {asked.budget} cases, for labels only."
    fleet = report.fleet if report else None
    if fleet and suspect.tested:
        yield f"Among the {fleet.tested} suspects tested: {_equals(suspect.tested.q_value, 'q')}."


def _odds_of(setting: SettingEntry) -> str:
    if setting.log10_p is UNSET or setting.log10_p >= math.log10(_LEAST):
        return odds(setting.p_value or 0.0)
    return f"1 in 10^{math.floor(-setting.log10_p)}"


def _p_of(setting: SettingEntry) -> str:
    if setting.log10_p is UNSET:
        return _equals(setting.p_value or 0.0)
    return f"p = {power_of_ten(setting.log10_p)}"


def _models(setting: SettingEntry) -> str:
    shown = _odds_of(setting)
    return f"{shown} of independent models come" if shown.endswith("%") else f"{shown} independent models comes"


def _strength(suspect: SuspectEntry, p_value: float) -> str:
    if suspect.decision != "copy":
        return "No evidence of copying" if p_value > 0.05 else "Too little evidence of copying"
    return f"{next((words for most, words in _STRENGTHS if p_value <= most), 'Weak')} evidence"


def _log_strength(log10_p: float) -> str:
    known = (words for most, words in _STRENGTHS if log10_p <= math.log10(most))
    return f"{next(known, 'Weak')} evidence"


def _votes(name: str, suspect: SuspectEntry) -> tuple[int, int, str]:
    cast = [m for m in suspect.metrics.values() if m.vote is not None and name in (m.group, "joint")]
    copies = sum(bool(m.vote) for m in cast)
    if not cast:
        return 0, 0, f"no measurement of its {SIDES[name]} could vote"
    return copies, len(cast), f"{copies} of {len(cast)} on {SIDES[name]}"


def _agreement(suspect: SuspectEntry, votes: Sequence[tuple[int, int, str]]) -> str:
    copies, cast = sum(said for said, _, _ in votes), sum(of for _, of, _ in votes)
    if not cast:
        return "No measurement could vote."
    each = f" ({', '.join(said for _, _, said in votes)})" if len(votes) > 1 else ""
    rate = _bound(suspect)
    if rate is not None and copies:
        so = "it would say so" if cast == 1 else "each would say so"
        each += f"; {so} of at most {percent(rate)} of independent models"
    if cast == 1:
        return f"The only measurement {'says' if copies else 'does not say'} copy{each}."
    if copies in (0, cast):
        whole = {True: "Both measurements say", False: "Neither measurement says"}[bool(copies)]
        if cast > 2:
            whole = f"All {cast} measurements say" if copies else f"None of {cast} measurements says"
        return f"{whole} copy{each}."
    return f"{copies} of {cast} measurements say{'s' * (copies == 1)} copy{each}."


def _silent(suspect: SuspectEntry) -> Iterator[str]:
    others = [m for m in suspect.metrics.values() if m.group != "marks"]
    silent = sum(m.value is not None and m.vote is None for m in others)
    if silent:
        yield f"{silent} more could not vote."


def _bound(suspect: SuspectEntry) -> float | None:
    # How often a measurement is wrong, at most.
    voting = [m for m in suspect.metrics.values() if m.vote is not None and m.group != "marks"]
    stated = [m.false_positive_rate for m in voting]
    return max((rate for rate in stated if rate is not None), default=None)


def rates(report: AuditReport) -> list[str]:
    """What the rates of a report mean, and how often such answers are wrong: a sentence or two each."""
    if not any(s.decision in ("copy", "independent") and not _is_fact(s) for s in report.suspects):
        return [*_of_all(report)] if report.fleet else []
    return [*_of_one(report), *marks.rates(report), *_assumed(report), *_of_settings(report), *_of_all(report)]


def _of_one(report: AuditReport) -> Iterator[str]:
    # How often an independent model is called a copy, as far as the rule and the controls say it.
    with_p = any(_by_controls(suspect) for suspect in report.suspects)
    exactly = any(one.settings.weights and one.settings.weights.log10_p is not UNSET for one in report.suspects)
    level, confidence, tested = level_of(report), _share(report, "confidence"), bool(report.fleet)
    if with_p:
        yield (
            "A p-value (p) is the probability, at most, that an independent model like the controls comes as close to "
            "the victim as the suspect does. It is not the probability that the suspect is independent."
        )
    if exactly:
        yield (
            "The p-value of weights is the probability, at most, that a model whose first weights were drawn "
            "independently of the victim's has its neurons in the victim's order as often as the suspect has. It rests "
            "on no controls. It does not hold for models that share the victim's first weights, or if somebody who "
            "knew the suspect made the victim's file or chose what is compared."
        )
    if tested or ((exactly or marks.level_of(report)) and not report.calibration.controls):
        return
    if level is not None:
        separate = report.groups == "separate" and not _one_by_one(report)
        sides = _sides(report)
        number = {2: "two ", 3: "three "}.get(len(sides), "")
        each = f", in each of the {number}comparisons ({_listed(sides)})" if separate and len(sides) > 1 else ""
        sure = f", with {percent(confidence)} confidence in the controls" if confidence is not None else ""
        yield f"At most {percent(level)} of independent models like the controls would be called copies{each}{sure}."
        return
    bounds = [rate for suspect in report.suspects if (rate := _bound(suspect)) is not None]
    if bounds:
        yield (
            f"One measurement alone wrongly says copy of at most {percent(max(bounds))} of independent models like the "
            "controls, if their distances from the victim are normally distributed. How often the vote of all is wrong "
            "was not measured; the command deepjudge power measures it."
        )
    elif not with_p:
        yield f"How often an answer is wrong was not measured: the rule {report.rule} gives no error rate."


def _assumed(report: AuditReport) -> Iterator[str]:
    # Of n controls none can be nearer, which happens once in n + 1 times: without a distribution no more can be said.
    p_values = [p for s in report.suspects for p in _by_controls(s)]
    stated = [*p_values, *filter(None, [level_of(report)])]
    fewest, count = fewest_controls(report), effective_controls(report)
    if fewest and stated and min(stated) < 1 / (fewest + 1):
        of_one = f" (only {fewest} of one stratum, that is, of one kind)" if fewest < count else ""
        yield (
            f"With {counted(count, 'control')}{of_one}, any rate below 1 in {fewest + 1} rests on how distances are "
            "assumed to be distributed, and not on the controls alone."
        )


def _of_settings(report: AuditReport) -> Iterator[str]:
    if report.fleet or report.groups != "separate" or _one_by_one(report):
        return
    sides, level, confidence = _sides(report), level_of(report), _share(report, "confidence")
    by_keys = marks.level_of(report)
    whole = None if level is None else len(sides) * level + (by_keys or 0.0)
    rate = f": at most {percent(min(1, whole))} in all" if whole is not None else ""
    if rate and confidence is not None and 1 - len(sides) * (1 - confidence) > 0:
        rate += f", with {percent(1 - len(sides) * (1 - confidence))} confidence"
    sides += [SIDES["marks"]] if by_keys else []
    if len(sides) < 2:
        return
    either, often = _OFTEN.get(len(sides), ("each", f"{len(sides)} times"))
    yield (
        f"{capital(_listed(sides))} are judged separately, and {either} can lead to the answer copy, so a false "
        f"accusation is up to {often} as likely as by one of them{rate}."
    )


_OFTEN: Mapping[int, tuple[str, str]] = {2: ("either", "twice"), 3: ("each", "three times"), 4: ("each", "four times")}


def _sides(report: AuditReport) -> list[str]:
    # What is judged by itself: behaviour and layers, but of suites of weights alone, and weights where there are any.
    weights = any(metric.group == "weights" for metric in report.metrics.values())
    alone = weights and _of_weights_alone(report)
    return [*([] if alone else [SIDES["black-box"], SIDES["white-box"]]), *([SIDES["weights"]] if weights else [])]


def _of_weights_alone(report: AuditReport) -> bool:
    return bool(report.metrics) and all(metric.group == "weights" for metric in report.metrics.values())


def _listed(sides: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(sides[:-1]), *sides[-1:]]))


def _by_controls(suspect: SuspectEntry) -> list[float]:
    # The p-values that rest on controls.
    settings = suspect.settings.named()
    return [p for name, p in _p_values(settings).items() if settings[name].log10_p is UNSET and name != "marks"]


def _of_all(report: AuditReport) -> Iterator[str]:
    fleet = report.fleet
    if fleet and not fleet.tested:
        yield f"No suspect could be tested for a false discovery rate of {percent(fleet.fdr)}."
    elif fleet:
        yield (
            f"{_were(fleet.tested)} tested together (procedure of Benjamini and Hochberg), with a false discovery rate "
            f"of {percent(fleet.fdr)}: among the models called copies, at most that share is expected to be "
            "independent, if their p-values are right and independent of one another or positively dependent. A "
            "q-value (q) is the smallest such rate at which the suspect would be called a copy. It is a rate over all "
            "suspects, not the error rate of one accusation."
        )
    judged = sum(suspect.decision != "failed" for suspect in report.suspects)
    if not fleet and judged > 1:
        yield (
            f"These rates hold for one suspect. With {judged} suspects, at least one false accusation is more likely."
        )


def _were(count: int) -> str:
    return "1 suspect was" if count == 1 else f"{count} suspects were"


def limits(report: AuditReport) -> list[str]:
    """What the report does not show, a sentence or two each: first what these controls leave open."""
    decisions = {suspect.decision for suspect in report.suspects}
    lines = list[str]()
    if report.calibration.controls:
        lines.append(
            "The controls are models that the auditor calls independent of the victim; this report does not prove that "
            "they are. Independent models of a kind that has no controls may come closer to the victim."
        )
    elif "inconclusive" in decisions:
        lines.append(
            "Without controls (models that are independent of the victim), only the victim itself is recognised: how "
            "close independent models come to it is not known."
        )
    if decisions - {"failed"}:
        lines += map(sentence, report.calibration.limits)
    if "copy" in decisions:
        lines += _who_was_first(report)
        lines.append(
            "A copy is not necessarily stolen: a licence, a common ancestor or shared training data may explain it. "
            "Who made it, and with what right, is not shown."
        )
    if "independent" in decisions:
        lines.append(
            "No sign of copying is no proof of independence: a copy that was changed enough looks the same. How many "
            "copies this test would miss was not measured."
        )
    if not report.committed:
        lines.append(
            "Nothing shows since when cases, controls and rule have been fixed, nor how many others were tried before: "
            "there is no time-stamp of a commitment."
        )
    lines.append("The answers hold for the files whose SHA-256 (fingerprint) is listed below, and for no others.")
    behaviour = any(metric.group == "black-box" for metric in report.metrics.values())
    if behaviour and decisions & {"independent", "inconclusive"}:
        lines.append(
            "A model that was trained on the victim's answers has weights of its own: only measurements of behaviour "
            "can find it, and less clearly."
        )
    weighed = [metric for metric in report.metrics.values() if metric.group == "weights"]
    if weighed and len(weighed) == len(report.metrics):
        lines.append(
            "A model that was trained on the victim's answers (extraction or distillation) has weights of its own: "
            "weights alone cannot find it."
        )
    if weighed:
        lines.append(
            "The neurons of a model can be put in another order without changing what it computes. By their order, a "
            "copy that was scrambled in this way is not found: that the order does not agree acquits nobody."
        )
    return [*lines, *marks.limits(report)]


def _who_was_first(report: AuditReport) -> Iterator[str]:
    # Nearness is the same from both sides: a victim may have been made from the suspect.
    copies = [suspect for suspect in report.suspects if suspect.decision == "copy"]
    date = report.dated.date[:10] if report.dated and report.dated.date else None
    later = [suspect for suspect in copies if date and suspect.published and suspect.published > date]
    before = [suspect for suspect in copies if date and suspect.published and suspect.published <= date]
    open_ones = len(copies) - len(later) - len(before)
    if open_ones:
        missing = "no time-stamp shows since when the victim has existed" if date is None else "no date of it is stated"
        whom = "" if open_ones == len(copies) else f"Of {counted(open_ones, 'copy', 'copies')}: "
        yield (
            f"{whom}{'n' if whom else 'N'}earness does not show who was first: if the victim had been made from the "
            f"suspect, they would be as near, and {missing}."
        )
    if later:
        days = ", ".join(sorted({str(suspect.published) for suspect in later}))
        yield (
            f"By its time-stamp, the victim existed on {date}; {counted(len(later), 'copy', 'copies')} became public "
            f"later ({days}), as the maker of this report says. That nobody had the suspect before is not shown."
        )
    if before:
        days = ", ".join(sorted({str(suspect.published) for suspect in before}))
        yield (
            f"{counted(len(before), 'copy', 'copies')} had been public ({days}) before the first date that is shown "
            f"for the victim, {date}: the victim may have been made from it."
        )


def level_of(report: AuditReport) -> float | None:
    """The level that the rule was given, 0..1; None for rules without one."""
    return _share(report, "level")


def _share(report: AuditReport, name: str) -> float | None:
    # An option of the rule, which may be anybody's.
    value: Any = report.rule_options.get(name)
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_one and 0 < value < 1 else None


def effective_controls(report: AuditReport) -> int:
    """How many controls there are that differ: near-duplicates count as one."""
    return report.calibration.effective or len(report.calibration.controls)


def kind_of(control: ControlEntry, unknown: str = "unknown") -> str:
    """The stratum of a control, as it was said, with its architecture as its layers show it; in words if unknown."""
    if control.architecture is UNSET:
        return control.stratum or unknown
    return with_architecture(control.stratum, same=control.architecture == SAME_ARCHITECTURE)


def fewest_controls(report: AuditReport) -> int:
    """How many controls there were of the metric and the stratum that have the fewest; 0 without controls."""
    counts = Counter(
        (name, kind_of(control))
        for control in report.calibration.controls
        if control.alike is UNSET
        for name, value in control.metrics.items()
        if value is not None
    )
    return min(counts.values(), default=0)


def _one_by_one(report: AuditReport) -> bool:
    return any(suspect.sequential for suspect in report.suspects)


def _p_values(settings: Mapping[str, SettingEntry]) -> dict[str, float]:
    return {name: s.p_value for name, s in settings.items() if s.p_value is not None}


def _equals(value: float, name: str = "p") -> str:
    shown = probability(value)
    return f"{name} {shown}" if shown.startswith("<") else f"{name} = {shown}"
