"""What an audit would see of thefts, as it stands in a file."""

from collections.abc import Sequence

from msgspec import UNSET

from deepjudge_core.auditing.power import AttackPower, PowerEstimate, Share, ZooModelResult
from deepjudge_core.report.audit_json import dump, metric_entries, suite_entry, verdict_fields
from deepjudge_core.report.documents import (
    AttackEntry,
    GroupCounts,
    GroupShares,
    HeldOut,
    MadeEntry,
    PowerReport,
    RuleAttackEntry,
    RuleEntry,
    ShareEntry,
    ZooModelEntry,
)
from deepjudge_core.version import VERSION


def power_report(
    power: PowerEstimate, made: MadeEntry | None = None, others: Sequence[PowerEstimate] = ()
) -> PowerReport:
    """The outcome as it stands in a file.

    Args:
        power: The outcome, by the first rule.
        made: When the report was made, by whom, and in which case; None where that is not recorded.
        others: Of the same models, by other rules.
    """
    measurements = power.calibration.measurements[0].values()
    return PowerReport(
        deepjudge=VERSION,
        made=made or UNSET,
        victim=power.zoo.victim,
        suite=suite_entry(power.suite, power.judge.metrics),
        match=power.calibration.match,
        rule=power.judge.rule.name,
        rule_options=dict(power.judge.options),
        groups=power.judge.settings.groups,
        require_layers=power.judge.settings.require_layers or UNSET,
        metrics=metric_entries((measurement.metric for measurement in measurements), power.judge),
        controls=HeldOut(
            count=len(power.calibration.controls),
            held_out_accused=_share(power.accused),
            notes=power.calibration.notes,
        ),
        attacks=tuple(map(_attack, power.attacks)),
        models=tuple(map(_model, power.results)),
        rules=tuple(map(_rule, (power, *others))) if others else UNSET,
    )


def dump_power(power: PowerEstimate) -> str:
    """The outcome as text; equal outcomes give equal texts."""
    return dump(power_report(power))


def _attack(attack: AttackPower) -> AttackEntry:
    return AttackEntry(
        attack=attack.attack,
        copies=_share(attack.copies),
        groups=GroupShares(**{name.replace("-", "_"): _share(share) for name, share in attack.groups.items()}),
        inconclusive=attack.inconclusive,
        left_out=attack.left_out,
        auc=dict(attack.auc),
        undecided=GroupCounts(**{name.replace("-", "_"): count for name, count in attack.undecided.items()})
        if attack.undecided
        else UNSET,
        title=attack.title or UNSET,
    )


def _rule(power: PowerEstimate) -> RuleEntry:
    return RuleEntry(
        rule=power.judge.rule.name,
        rule_options=dict(power.judge.options),
        held_out_accused=_share(power.accused),
        held_out_inconclusive=power.undecided_controls,
        attacks=tuple(
            RuleAttackEntry(attack=one.attack, copies=_share(one.copies), inconclusive=one.inconclusive)
            for one in power.attacks
        ),
        decisions={one.model.file: _model(one).decision for one in power.results},
    )


def _model(result: ZooModelResult) -> ZooModelEntry:
    model = result.model
    return ZooModelEntry(
        file=model.file,
        kind=model.kind,
        stratum=model.stratum,
        attack=model.attack,
        accuracy=model.accuracy,
        seconds=model.seconds,
        counts=result.counts,
        **verdict_fields(result.verdict, result.failure),
    )


def _share(share: Share) -> ShareEntry:
    return ShareEntry(
        count=share.count,
        of=share.of,
        share=share.count / share.of if share.of else None,
        interval=share.interval,
    )
