"""Which generators make a suite: those that were named, or the usual ones, by what the victim gives."""

from dataclasses import dataclass

import numpy as np

from deepjudge_core.components.kinds import Generator
from deepjudge_core.components.registry import Catalogue, Configured
from deepjudge_core.components.values import Seeds
from deepjudge_core.errors import MissingExtraError, ModelError, UsageError
from deepjudge_core.models.model import Access, Model
from deepjudge_core.naming import option
from deepjudge_core.suites.settings import ANSWERING_GENERATORS, DEFAULT_GENERATORS, SuiteSettings
from deepjudge_core.types import Array

_OF_GRADIENTS = (ModelError.code, MissingExtraError.code, "cannot-answer")  # the adapter knows best why there are none
_FEW = 8  # seeds at which it is seen whether there are gradients


@dataclass(frozen=True, eq=False)
class GeneratorChoice:
    """The generators of a suite with all their options, checked before any model is run.

    Attributes:
        generators: Those that are run.
        answering: Of numbers and of tokens, what is run in place of them if the victim gives no gradients; none where
            the user named generators.
        optioned: Names of those for which the user gave options.
    """

    generators: tuple[Configured[Generator], ...]
    answering: tuple[Configured[Generator], ...] = ()
    optioned: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: SuiteSettings, generators: Catalogue[Generator]) -> "GeneratorChoice":
        """Look up what the settings name.

        Raises:
            UsageError: For a generator or an option that does not exist, or a value that cannot be.
        """
        names, options = settings.generators, settings.options
        if names is not None:
            configured = generators.configure(names, options)
            if not configured:
                raise UsageError("expected at least one generator, found none", code="missing-value")
            return cls(configured)
        own = {name: chosen for name, chosen in options.items() if name in ANSWERING_GENERATORS}
        others = {name: chosen for name, chosen in options.items() if name not in own}
        return cls(
            generators.configure(DEFAULT_GENERATORS, others),
            generators.configure(ANSWERING_GENERATORS, own),
            frozenset(options),
        )

    @property
    def makes(self) -> frozenset[str]:
        """The sets of cases that the suite is going to have, at most, beside the seeds."""
        return frozenset(generator.component.makes for generator in (*self.generators, *self.answering))

    def for_victim(self, victim: Model, seeds: Seeds) -> tuple[tuple[Configured[Generator], ...], tuple[str, ...]]:
        """The generators that are run on a victim, and what a reader should know of that.

        Args:
            victim: The victim.
            seeds: What cases are made from.

        Raises:
            ModelError: When the victim fails at more than at gradients.
            UsageError: For options of a generator that is not run, since the victim gives gradients.
        """
        reason = _without_gradients(victim, seeds) if self.answering else None
        preferred = [generator for generator in self.answering if generator.name in self.optioned]
        if reason is None:
            if preferred:
                usual = ", ".join(generator.name for generator in self.generators)
                raise UsageError(
                    f"options for {preferred[0].name}, which is not among the generators in use ({usual}); "
                    f"add it with {option('generators')}",
                    code="conflict",
                )
            return self.generators, ()
        numbers, tokens = self.answering
        chosen = tokens if _are_tokens(victim, seeds) else numbers
        if len(preferred) == 1:
            chosen = preferred[0]
        unused = ", ".join(sorted(self.optioned - {chosen.name}))
        note = (
            f"{reason}; so {chosen.name} makes adversarial cases from the victim's answers alone, and "
            f"layer metrics get no cases{f'; the options of {unused} are not used' if unused else ''}"
        )
        return (chosen,), (note,)


def _without_gradients(victim: Model, seeds: Seeds) -> str | None:
    # Why there are none to go by; None where there are.
    try:
        gradients = victim.gradient(seeds.inputs[:_FEW], _unequal)
    except ModelError as error:
        if error.code not in _OF_GRADIENTS:
            raise
        return str(error)
    if Access.GRADIENTS not in victim.access:
        return f"{victim.name}: provides no gradients"
    return None if gradients.any() else f"{victim.name}: its gradients are 0, as happens if it rounds numbers"


def _unequal(scores: Array, rows: slice) -> Array:
    # Of no class as of another: what adds to all alike changes nothing.
    return np.broadcast_to(np.cos(np.arange(scores.shape[1])), scores.shape).astype(scores.dtype)


def _are_tokens(victim: Model, seeds: Seeds) -> bool:
    # Flat whole numbers: a small change of a token is as great as any. Bytes are pixels, or quantised numbers.
    whole = bool((seeds.inputs == np.rint(seeds.inputs)).all())
    return seeds.inputs.ndim == 2 and whole and victim.input.dtype not in ("int8", "uint8")
