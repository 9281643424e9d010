"""What rules say to a reader who is no statistician."""

from collections.abc import Iterable, Mapping

from deepjudge_core.components.values import Evidence

_LEAST = 1e-6  # beyond it nothing is said: no distribution is known so well


def near(p_value: float) -> str:
    """What a p-value says about honest models."""
    share = odds(p_value)
    share += " of" if share.endswith("%") else ""
    return f"at most {share} honest models like the controls would be as near to the victim as this suspect"


def odds(p_value: float) -> str:
    """A probability, as people say it, never less than it is."""
    if p_value < _LEAST:
        return "1 in 1,000,000"
    return f"1 in {int(1 / p_value):,}" if p_value <= 0.5 else percent(p_value)


def percent(share: float) -> str:
    """A share, without zeros at its end."""
    return f"{100 * share:.3g} %"


def control_counts(evidence: Mapping[str, Evidence]) -> str:
    """How many controls there were of the metric that has the fewest, of each stratum where strata are known."""
    fewest = min(evidence.values(), key=lambda metric: len(metric.controls))
    sizes = {stratum: len(values) for stratum, values in fewest.by_stratum().items()}
    if set(sizes) == {None}:
        return f"{sizes[None]} controls of unknown strata"
    named = ", ".join(f"{n} {stratum or 'unknown'}" for stratum, n in sizes.items())
    return f"{sum(sizes.values())} controls ({named})"


def lognormal(evidence: Mapping[str, Evidence]) -> str:
    """What a rule assumes that no controls can show, and what they say without it."""
    fewest = min(len(values) for metric in evidence.values() for values in metric.by_stratum().values())
    return (
        "this assumes that the distances of honest models are log-normally distributed; without "
        f"that assumption, this many controls cannot show anything rarer than 1 in {fewest + 1}"
    )


def sentence(parts: Iterable[str]) -> str:
    """Parts of one, with a capital letter in front."""
    text = "; ".join(filter(None, parts))
    return text[:1].upper() + text[1:]
