"""The part of a suite that compares weights: a plan, the victim's sketch, and that of its ancestor."""

from dataclasses import replace

from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.judging.exact import LOG10_LEVEL
from deepjudge_core.naming import option
from deepjudge_core.observing.weights import weights_alone, with_weights
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.settings import SuiteSettings
from deepjudge_core.suites.suite import Suite
from deepjudge_core.weights.order import order_test
from deepjudge_core.weights.reading import lora
from deepjudge_core.weights.values import WeightPlan


def suite_of_weights(victim: Subject, settings: SuiteSettings, session: Session) -> Suite:
    """A suite of weights alone: nobody is run, neither for it nor by it.

    Args:
        victim: The owner's model.
        settings: How the suite is made.
        session: Where the adapters are, and how a file is confined.

    Raises:
        ModelError: When its weights cannot be read, or nothing of them can be compared.
        UsageError: When the settings say that weights are left out, or name what cannot be the victim's ancestor.
    """
    if not settings.sketch:
        raise UsageError("expected inputs or weights to compare, found neither", code="conflict")
    with victim.sketching(session) as sketcher:
        plan = sketcher.plan(seed=settings.seed, ancestry=settings.ancestor is not None)
        own = weights_alone(sketcher, plan, victim=True)
    ancestor, remarks = _ancestor(plan, own, settings, session)
    return Suite.of_weights(plan, replace(own, notes=()), (*own.notes, *remarks), ancestor)


def suite_with_weights(suite: Suite, victim: Subject, settings: SuiteSettings, session: Session) -> Suite:
    """A suite of cases that compares weights, too, where they can be read or have to be.

    Args:
        suite: Its cases.
        victim: The owner's model.
        settings: How the suite is made.
        session: Where the adapters are, and how a file is confined.

    Raises:
        ModelError: When the settings demand weights that cannot be read, or of which nothing can be compared.
        UsageError: When they demand weights and say that they are left out, or name what cannot be the ancestor.
    """
    demanded = settings.weights or settings.ancestor is not None
    if not settings.sketch:
        if demanded:
            raise UsageError(f"expected weights to compare, found {option('sketch', False)}", code="conflict")
        return suite
    try:
        with victim.sketching(session, suite.victim.model.input) as sketcher:
            plan = sketcher.plan(seed=settings.seed, ancestry=settings.ancestor is not None)
            own = with_weights(suite.victim, sketcher, plan, victim=True)
    except ModelError as error:
        if demanded:
            raise
        # Of what never shows weights, there is nothing to say.
        note = f"weights are not compared: {str(error).removeprefix(f'{victim.name}: ')}"
        return suite if error.code == "no-weights" else replace(suite, notes=(*suite.notes, note))
    notes = tuple(note for note in own.notes if note not in suite.notes)
    ancestor, remarks = _ancestor(plan, own, settings, session)
    own = replace(own, notes=suite.victim.notes)
    return replace(suite, victim=own, notes=(*suite.notes, *notes, *remarks), weights=plan, ancestor=ancestor)


def _ancestor(
    plan: WeightPlan, victim: Observation, settings: SuiteSettings, session: Session
) -> tuple[Observation | None, tuple[str, ...]]:
    # An ancestor takes accusations away: one that cannot be what the victim was made from would acquit thieves.
    if settings.ancestor is None:
        return None, ()
    options = {"base": str(settings.ancestor_base)} if settings.ancestor_base else {}
    if options and not lora.is_lora(settings.ancestor):
        raise UsageError(f"{settings.ancestor}: expected a LoRA, which has a base, found none", code="conflict")
    with ModelFile(settings.ancestor, options).sketching(session) as sketcher:
        ancestor = weights_alone(sketcher, plan)
    expected = f"{settings.ancestor}: expected the model that the victim was made from"
    if ancestor.model.digest == victim.model.digest:
        raise UsageError(f"{expected}, found the victim itself", code="conflict")
    found = order_test(victim.weights, ancestor.weights) if victim.weights and ancestor.weights else None
    if found is None:
        why = f": {ancestor.unsketched}" if ancestor.unsketched else ""
        raise UsageError(f"{expected}, found weights of other shapes, which cannot be compared{why}", code="conflict")
    if found.log10_p <= LOG10_LEVEL:
        return ancestor, ()
    few = f"{found.agreeing:,} of {found.compared:,} neurons"
    return ancestor, (
        f"the ancestor {settings.ancestor} has the victim's order in {few} only, as an independent model has: it "
        "explains no likeness. Is it what the victim was made from?",
    )
