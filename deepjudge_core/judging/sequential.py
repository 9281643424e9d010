"""Ask a suspect case by case, for labels alone, and stop as soon as these say enough.

The adversarial cases of the suite are a finite population; the suspect errs as the victim on some of them: it gives the
victim's label to the case, and the right one to the case's seed. The controls bound on how many an honest model does,
and what is asked is whether the suspect does on more: by bets against either answer, which hold whenever the asking
stops.
"""

import hashlib
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deepjudge_core import progress
from deepjudge_core.components.kinds import Rule
from deepjudge_core.components.values import Decision, Evidence, Judgement
from deepjudge_core.errors import FileFormatError, UsageError
from deepjudge_core.judging.accuracy import FAR, Accuracy, accuracy_gap, accuracy_on_seeds, errs_alike
from deepjudge_core.judging.architecture import is_shown, widths
from deepjudge_core.judging.betting import Capital
from deepjudge_core.judging.calibration import LEAST_CONTROLS, SPREAD_UNKNOWN, Calibration, has_spread
from deepjudge_core.judging.guards import BY_FAR
from deepjudge_core.judging.rules import apply_rule, expect_p_values
from deepjudge_core.judging.verdict import Setting, Verdict
from deepjudge_core.judging.view import View, unfit_whole
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array

ORDER = "sha256 of suite digest, colon, row"
"""In what order cases are asked: that of these digests."""
_ALIKE = "erring alike"
_SEEDS = 30  # that a suspect of another behaviour is asked, to see whether it knows the task
_LABELS_ALONE = (
    "cases are asked one by one, each once and for its label alone: layers are not compared, "
    "preprocessing and classes are not inferred, and repeated answers are not checked"
)

_NO_KEYS = "cases are asked one by one, and the keys were not asked"


@dataclass(frozen=True)
class SequentialResult:
    """What a suspect was asked, and what followed.

    Attributes:
        cases: How many adversarial cases there are.
        budget: How many cases may be asked, seeds among them.
        most: On how many adversarial cases an honest model errs as the victim, at most.
        rows: Rows of the suite's cases that were asked, in their order, each once: after an adversarial case that got
            the victim's label, its seed.
        labels: What the suspect answered to each: a class of the victim's.
        e_copy: The greatest e-value against an honest model: at most ``most`` cases.
        e_independent: That against more than so many.
    """

    cases: int
    budget: int
    most: int
    rows: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    e_copy: float = 1.0
    e_independent: float = 1.0


def check_sequential(rule: Rule, options: Mapping[str, Any], budget: int | None, *, others: bool) -> None:
    """Refuse what cannot be asked case by case.

    Args:
        rule: The rule.
        options: All of its options.
        budget: How many cases may be asked; None for all.
        others: Whether metrics, groups or a false discovery rate were asked for.

    Raises:
        UsageError: Saying what would do.
    """
    if others:
        raise UsageError(
            "expected no metrics, groups or false discovery rate, because the cases are asked one by one",
            code="conflict",
        )
    if budget is not None and budget < 1:
        raise UsageError(f"expected a budget of at least 1 case, found {budget}", code="wrong-value")
    expect_p_values(rule, options, "whose level bounds how often an honest model makes the victim's errors")


def order_of(suite: Suite) -> tuple[int, ...]:
    """The rows of the adversarial cases in the order in which they are asked.

    It is that of the SHA-256 of ``DIGEST:ROW``, with the suite's digest in hex: whoever has the suite has the order,
    and nobody chooses it.
    """
    rows = np.flatnonzero(suite.rows("adversarial")).tolist()
    return tuple(sorted(rows, key=lambda row: hashlib.sha256(f"{suite.digest}:{row}".encode()).digest()))


def judge_sequentially(
    suite: Suite,
    calibration: Calibration,
    label: Callable[[int], int],
    rule: Rule,
    options: Mapping[str, Any],
    *,
    budget: int | None = None,
    view: View | None = None,
) -> tuple[Verdict, SequentialResult | None]:
    """Judge a suspect by the labels that it gives to the adversarial cases, asked one by one.

    An honest model errs as the victim on more cases than the bound with a probability of at most half of the rule's
    level; where it does not, the bets accuse it with a probability of at most the other half. Of a suspect that errs as
    no control does the controls show nothing: it is inconclusive.

    Args:
        suite: The suite.
        calibration: The controls.
        label: Asks the suspect one case, by its row: the label, as a class of the victim's.
        rule: Bounds from the controls on how many cases an honest model does not err as the victim, at least.
        options: All of its options, with ``level``.
        budget: How many cases may be asked; None for all.
        view: Which cases may be asked, and what is kept of the scores that the labels come from; None for all.

    Returns:
        The verdict, and what was asked; None of that where the controls say too little to ask anything.
    """
    rows = order_of(suite)
    if view is None:
        return _judge(suite, calibration, label, rule, options, budget, rows)
    originals = np.flatnonzero(view.compared)
    places = {int(row): place for place, row in enumerate(originals)}
    part, _ = view.through(suite, suite.victim)
    verdict, result = _judge(
        part,
        _seen(suite, calibration, view),
        lambda place: label(int(originals[place])),
        rule,
        options,
        budget,
        tuple(places[row] for row in rows if row in places),
    )
    if result is None:
        return verdict, None
    return verdict, replace(result, rows=tuple(int(originals[place]) for place in result.rows))


def _seen(suite: Suite, calibration: Calibration, view: View) -> Calibration:
    # The controls as far as they can be looked at so.
    fit = [place for place, one in enumerate(calibration.controls) if not view.unfit(suite, one)]
    seen = (view.through(suite, calibration.controls[place])[1] for place in fit)
    return replace(calibration.only(fit), controls=tuple(replace(one, exchange=None) for one in seen))


def _judge(
    suite: Suite,
    calibration: Calibration,
    label: Callable[[int], int],
    rule: Rule,
    options: Mapping[str, Any],
    budget: int | None,
    rows: Sequence[int],
) -> tuple[Verdict, SequentialResult | None]:
    level = float(options["level"])
    bound = _bound(suite, calibration, rule, options) if rows else "the suite has no adversarial cases"
    if isinstance(bound, str):
        return _verdict(Setting(Decision.INCONCLUSIVE, reason=bound), suite), None
    size = len(rows)
    most = max(size - 1 - bound.near, 0)
    seeds = _seeds(suite)
    most_queries = size + len(set(seeds.values()))
    allowed = min(most_queries, budget or most_queries)
    asked = _Asked(suite, label, allowed)
    copy, independent = Capital.start(size, most), Capital.start(size, size - 1 - most)
    expected, greatest = _labels(suite.victim), (1.0, 1.0)
    with progress.task("asking case by case", allowed) as advance:
        for row in rows:
            before = len(asked.labels)
            try:
                errs_alike = asked.label(row) == expected[row] and asked.is_right(seeds[row])
            except _SpentError:
                break
            copy, independent = copy.after(errs_alike), independent.after(not errs_alike)
            greatest = max(greatest[0], copy.value), max(greatest[1], independent.value)
            advance(len(asked.labels) - before)
            if max(greatest) >= 2 / level:
                break
    doubt = None
    if max(greatest) >= 2 / level:
        accused = greatest[0] >= 2 / level
        doubt = asked.doubt([seeds[row] for row in rows], calibration, accused=accused)
        doubt = doubt or (None if accused else calibration.doubt)
    result = SequentialResult(size, allowed, most, tuple(asked.labels), tuple(asked.labels.values()), *greatest)
    return _verdict(_setting(result, copy, level, bound.basis, doubt), suite), result


class _SpentError(Exception):
    """No case may be asked any more."""


class _Asked:
    # What a suspect was asked and answered, each case once.

    def __init__(self, suite: Suite, label: Callable[[int], int], budget: int) -> None:
        self._suite, self._label, self._budget = suite, label, budget
        self.labels: dict[int, int] = {}

    def label(self, row: int) -> int:
        if row not in self.labels:
            if len(self.labels) == self._budget:
                raise _SpentError
            self.labels[row] = self._label(row)
        return self.labels[row]

    def is_right(self, row: int) -> bool:
        return bool(self.label(row) == self._suite.cases.labels[row])

    def doubt(self, seeds: Sequence[int], calibration: Calibration, *, accused: bool) -> str | None:
        # Why its labels say nothing: it errs as no control does. Of a suspect of another behaviour seeds are asked,
        # of an accused one only where it could be better than all controls.
        known = (accuracy_on_seeds(self._suite, control) for control in calibration.controls)
        controls = [accuracy for accuracy in known if accuracy]
        distinct = dict.fromkeys(seeds)
        sample = [row for row in distinct if row in self.labels]
        if not accused or max(control.share for control in controls) < 1 - FAR:
            sample = list(distinct)[:_SEEDS]
        try:
            right = sum(self.is_right(row) for row in sample)
        except _SpentError:
            return (
                f"the budget of {self._budget} cases was spent before it was clear whether it makes "
                "errors like the controls"
            )
        gap = accuracy_gap(Accuracy(right, len(sample), self._suite.label_origin != "inputs"), controls)
        return gap.reason if gap and (accused or gap.far) else None


def _seeds(suite: Suite) -> dict[int, int]:
    # The row of the seed of each adversarial case.
    clean = np.flatnonzero(suite.rows("clean"))
    return {int(row): int(clean[suite.cases.seeds[row]]) for row in np.flatnonzero(suite.rows("adversarial"))}


@dataclass(frozen=True)
class _Bound:
    near: int  # the greatest number of cases that makes a copy, if it does not err as the victim on them
    basis: str  # what it rests on


def _bound(suite: Suite, calibration: Calibration, rule: Rule, options: Mapping[str, Any]) -> _Bound | str:
    # Or why there is none.
    rows = suite.rows("adversarial")
    least: dict[int, float] = {}  # near-duplicates are one control, as near as the nearest of them
    for control, cluster in zip(calibration.controls, calibration.clusters, strict=True):
        alike = None if unfit_whole(control) else errs_alike(suite, control)
        if alike is not None:
            share = 1 - float(np.mean(alike))
            least[cluster] = min(share, least.get(cluster, share))
    places = tuple(sorted(least))
    if len(places) < LEAST_CONTROLS:
        return (
            f"expected at least {LEAST_CONTROLS} controls that give labels of the victim's classes, found {len(places)}"
        )
    shares = np.array([least[place] for place in places])
    if not has_spread(shares):
        return f"all controls agree with the victim on as many cases, so {SPREAD_UNKNOWN}"
    kinds = [calibration.kinds[place] for place in places]
    strata = tuple(calibration.divided[place] for place in places) if calibration.divided else ()
    size, controls = int(rows.sum()), Evidence(0.0, shares, 1.0, strata, places)

    def judge_at(others: int) -> Judgement:
        evidence = {_ALIKE: replace(controls, value=others / size)}
        return apply_rule(rule, evidence, {**options, "level": options["level"] / 2})

    nearest = judge_at(0)
    if nearest.decision is Decision.INCONCLUSIVE:
        return str(nearest.reason)
    if nearest.decision is not Decision.COPY:
        return "judging by these controls, an honest model may make the victim's error on every case"
    # As the value grows, a rule never turns back to copy.
    near = bisect_left(range(1, size + 1), True, key=lambda count: judge_at(count).decision is not Decision.COPY)
    fewest = min(map(len, controls.by_stratum().values()))
    # Of labels alone nothing is known of the suspect's architecture.
    own = [widths(calibration.controls[place].model) for place in places]
    if not is_shown(None, calibration.architecture, own, kinds):
        near = min(near, int(BY_FAR * size * shares.min()))
    basis = (
        f"by the rule {rule.name} from {len(places)} controls; without its assumptions, they "
        f"cannot show anything rarer than 1 in {fewest + 1}"
    )
    return _Bound(near, basis)


def _labels(observation: Observation) -> Array:
    if observation.probabilities is None:
        raise FileFormatError(f"{observation.model.name}: expected answers with the victim's classes, found others")
    labels: Array = observation.probabilities.argmax(axis=1)
    return labels


def _setting(result: SequentialResult, capital: Capital, level: float, basis: str, doubt: str | None) -> Setting:
    # An honest model's p-value is at most u in one of two ways: the bound does not hold of it, or the bets went so far.
    p_value, least = min(1.0, level / 2 + 1 / result.e_copy), level / 2
    enough, queries = 2 / level, len(result.rows)
    if doubt:
        # There is no chance of an accusation that is none.
        known = (None, None) if result.e_copy >= enough else (p_value, least)
        return Setting(Decision.INCONCLUSIVE, None, doubt, *known)
    counted = (
        f"it makes the victim's error on {capital.ones} of the {capital.drawn} adversarial cases "
        f"asked, out of {result.cases}, in {queries} queries"
    )
    if result.e_copy >= enough:
        decision, reason, against = Decision.COPY, None, _number(result.e_copy)
    elif result.e_independent >= enough:
        decision, reason, against = Decision.INDEPENDENT, None, _number(result.e_independent)
    else:
        reason = (
            f"{counted}, which does not decide (e-values {_number(result.e_copy)} and "
            f"{_number(result.e_independent)}, expected {enough:g}); the budget of {result.budget} "
            "cases is spent"
        )
        return Setting(Decision.INCONCLUSIVE, None, reason, p_value, least)
    than = "more" if decision is Decision.COPY else "no more"
    statement = (
        f"The suspect makes the victim's error on {than} than {result.most} of {result.cases} "
        f"cases: {counted}, so the e-value against the opposite is {against}; an honest model "
        f"makes it on more than {result.most} with a probability of at most {level / 2:.3g} "
        f"({basis}); if that holds, an honest model is called a copy with a probability of at "
        f"most {level:.3g}, at whatever point the queries stop"
    )
    return Setting(decision, None, None, p_value, least, statement)


def unasked(suite: Suite) -> dict[str, Setting]:
    """The setting of marks of a suspect that is asked case by case; none where the suite has no keys."""
    return {"marks": Setting(None, reason=_NO_KEYS)} if suite.keys else {}


def _verdict(setting: Setting, suite: Suite) -> Verdict:
    settings = {"black-box": setting, "white-box": Setting(None, reason=_LABELS_ALONE), **unasked(suite)}
    decision = setting.decision or Decision.INCONCLUSIVE
    return Verdict(decision, "behaviour" if decision is Decision.COPY else None, settings, {}, setting.reason)


def _number(e_value: float) -> str:
    return "infinite" if math.isinf(e_value) else f"{e_value:.3g}"
