"""How suspects are measured and judged: all that is said of it beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from deepjudge_core.judging.neurons import DEFAULT_MATCH, Match
from deepjudge_core.settings import setting

GroupMode = Literal["separate", "joint"]

SEQUENTIAL_RULE = "prediction-bound"


@dataclass(frozen=True, eq=False)
class JudgeSettings:
    """How suspects, and the controls beside them, are measured and judged.

    Attributes:
        metrics: Names, "all" for every installed one; None for those that are taken without a name, which none of other
            installed distributions is.
        rule: Name of the rule.
        rule_options: Its options.
        groups: "joint" for one vote over all metrics.
        require_layers: Whether a model of independent behaviour whose layers cannot be compared is inconclusive.
        fdr: The false discovery rate over all suspects, 0..1, which then makes the level of the rule, one that gives
            p-values; None to judge each by itself.
        sequential: Whether suspects are asked case by case, for labels alone, until these say enough; not in an audit
            in one go. The rule, one that gives p-values, bounds how often honest models err as the victim.
        budget: How many cases may be asked then; None for all adversarial ones. Without asking case by case, the most
            that suspects behind an API may be asked, which the command line hands on to them.
    """

    metrics: Annotated[Sequence[str], MinLen(1)] | None = setting(
        "metrics to use; all for every installed metric",
        "--metric",
        default=None,
        group="judging",
        metavar="NAME,...",
        key="metrics",
        sample=["robd", "jsd", "nod", "nad", "lod", "lad"],
        usual="the standard metrics",
        components="metrics",
    )
    rule: str = setting(
        "rule that turns distances into a verdict",
        "--rule",
        default="voting",
        group="judging",
        metavar="NAME",
        key="name",
        tables=("rule",),
        components="rules",
        commands=("judge", "audit", "commit", "fleet"),
    )
    rule_options: Mapping[str, Any] | None = setting(
        "option of the rule, such as alpha.jsd=0.8 or bound=mean",
        "--rule-option",
        default=None,
        group="judging",
        metavar="NAME=VALUE",
        key="options",
        tables=("rule",),
        components="rules",
    )
    groups: GroupMode = setting(
        "judge black-box and white-box metrics separately, or by one joint vote",
        "--groups",
        default="separate",
        group="judging",
        key="groups",
        tables=("rule",),
    )
    require_layers: bool = setting(
        "call a suspect inconclusive if its layers cannot be compared, even if its behaviour is independent",
        "--require-layers",
        default=False,
        group="judging",
        key="require_layers",
        tables=("rule",),
    )
    fdr: Annotated[float, Gt(0), Lt(1)] | None = setting(
        "false discovery rate over all suspects, instead of a level; needs a rule that gives p-values",
        "--fdr",
        default=None,
        group="judging",
        metavar="SHARE",
        key="fdr",
        tables=("rule",),
        sample=0.05,
        commands=("judge", "audit", "commit", "fleet"),
    )
    sequential: bool = setting(
        "ask the adversarial cases one by one, for their labels alone, and stop as soon as the "
        f"answers decide; the rule ({SEQUENTIAL_RULE} unless you choose another) bounds how often "
        "an honest model makes your model's errors",
        "--sequential",
        default=False,
        group="judging",
        commands=("judge", "commit"),
    )
    budget: Annotated[int, Ge(1)] | None = setting(
        "most cases that --sequential may ask; without it, most inputs that each suspect behind an API may be asked",
        "--budget",
        default=None,
        group="judging",
        metavar="N",
        usual="all adversarial cases and their seeds",
        commands=("judge", "commit"),
    )

    @classmethod
    def from_options(cls, **options: Any) -> "JudgeSettings":
        """Of what was given, with the rule that goes with it."""
        usual = {"rule": SEQUENTIAL_RULE} if options.get("sequential") else {}
        return cls(**(usual | options))


@dataclass(frozen=True)
class CalibrationSettings:
    """How controls, and the suspects judged by them, are measured.

    Attributes:
        match: How neurons are put beside the victim's.
        far: Whether controls far less accurate than the victim set thresholds, too.
    """

    match: Match = setting(
        "compare neurons of controls and suspects by position, or match each with the victim's "
        "neuron that it resembles most",
        "--match",
        default=DEFAULT_MATCH,
        group="judging",
        key="match",
    )
    far: bool = setting(
        "also count models whose accuracy is far below the victim's",
        "--far",
        default=False,
        group="judging",
        key="far",
    )
