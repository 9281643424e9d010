"""The commands by which a report could be made again, as far as the report knows them."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

from msgspec import UNSET

from deepjudge_core.files.documents import Json
from deepjudge_core.report.documents import (
    AnyReport,
    AuditReport,
    ControlEntry,
    PowerReport,
    SuiteEntry,
    SuspectEntry,
    VictimEntry,
)
from deepjudge_core.suites.choices import Choices
from deepjudge_core.text import LONGEST_LINE, clean

_SUMMED = 50  # files whose digests are printed
_LISTED = 50  # features whose bounds are written out
_SUITE, _CALIBRATION = "suite.safetensors", "calibration.safetensors"


def commands(report: AuditReport) -> list[str]:
    """Lines for a shell that do an audit again; what is written in capitals the report does not know."""
    return [*_digests(report), *_make(report), *_calibrate(report), *_judge(report)]


def control_commands(report: AuditReport) -> list[str]:
    """Lines for a shell that make controls of the victim, and calibrate with them."""
    making = ["zoo", _path(report.victim.path), *_prepared(report), "--data", "TRAIN.npz", "--controls-only"]
    return [
        _line([*making, "--split", "1", "-o", "zoo"]),
        _line(["calibrate", _SUITE, "zoo/controls", "-o", _CALIBRATION]),
    ]


def power_commands(power: PowerReport) -> list[str]:
    """The same of an audit's power."""
    zoo = ["zoo", _path(power.victim.path), "--data", "TRAIN.npz", *_prepared(power), "--suite", _SUITE, "-o", "ZOO"]
    power_words = ["power", _SUITE, "ZOO", "--match", power.match, *_judging(power), "-o", "POWER"]
    return [*_make(power), _line(zoo), _line(power_words)]


def _digests(report: AuditReport) -> Iterator[str]:
    models: Sequence[VictimEntry | ControlEntry | SuspectEntry]
    models = (report.victim, *report.calibration.controls, *report.suspects)
    yield "# prints the SHA-256 listed above, for models that are one file"
    yield _line([_path(model.path) for model in models if model.digest][:_SUMMED], "sha256sum")


def _make(report: AnyReport) -> Iterator[str]:
    suite = report.suite
    weights = list(_of_weights(suite))
    if not suite.generators and not suite.cases.clean:
        yield "# add how the model files are opened, if you said so: that is not recorded"
        yield _line(["suite", _path(report.victim.path), *weights, "--seed", str(suite.seed), "-o", _SUITE])
        return
    inputs = _path(suite.inputs.path) if suite.inputs else "INPUTS"
    words = ["suite", _path(report.victim.path), "--inputs", inputs]
    for option, value in (suite.inputs.options if suite.inputs else {}).items():
        words += [f"--{option}", str(value)]
    words += [
        "--bounds",
        _bounds(suite),
        *(["--labels", "victim"] if suite.labels == "victim" else []),
        *_prepared(report),
    ]
    words += _chosen(suite.choices) if suite.choices else _found(suite)
    if suite.challenge:
        words += ["--challenge", suite.challenge.value, "--commitment", "COMMITMENT"]
    for place, _ in enumerate(suite.keys or (), 1):
        words += ["--key", f"KEY-{place}"]
    reading = "" if suite.inputs else "how the inputs are read and "
    order = "" if suite.choices else " and seeds are ordered"
    yield f"# add {reading}how the model files are opened{order}, if you said so: that is not recorded"
    yield _line([*words, *weights, "--seed", str(suite.seed), "-o", _SUITE])


def _chosen(choices: Choices) -> Iterator[str]:
    # No more than was said: that a default was typed is a choice, too.
    yield from ("-n", str(choices.n), "--order", choices.order)
    if choices.generators is not None:
        yield from ("--generator", ",".join(map(_named, choices.generators)))
    for generator, options in choices.options.items():
        yield from _options("--option", options, f"{_named(generator)}.")
    if choices.layers is not None:
        yield from ("--layers", ",".join(choices.layers))
    yield from ("--pictures", choices.pictures) if choices.pictures else ()
    yield from ("--force",) if choices.force else ()


def _found(suite: SuiteEntry) -> Iterator[str]:
    # Of suites by earlier versions, all that is known.
    yield from ("-n", str(suite.cases.clean))
    yield from ("--generator", ",".join(_named(generator.name) for generator in suite.generators))
    for generator in suite.generators:
        yield from _options("--option", generator.options, f"{_named(generator.name)}.")
    if suite.layers:
        yield from ("--layers", ",".join(layer.name for layer in suite.layers))


def _of_weights(suite: SuiteEntry) -> Iterator[str]:
    if suite.weights:
        yield "--weights"
        yield from ("--ancestor", _path(suite.weights.ancestor)) if suite.weights.ancestor else ()


def _prepared(report: AnyReport) -> list[str]:
    preprocessing = report.victim.preprocessing
    return ["--victim-input", preprocessing.typed()] if preprocessing else []


def _bounds(suite: SuiteEntry) -> str:
    sides = suite.feature_bounds or tuple((bound,) for bound in suite.bounds or (0.0, 0.0))
    if len(sides[0]) > _LISTED:
        return "LOW:LOW,HIGH:HIGH"
    return ",".join(":".join(map(repr, side)) for side in sides)


def _calibrate(report: AuditReport) -> Iterator[str]:
    controls, files = report.calibration.controls, list[str]()
    if not controls:
        return
    for place, control in enumerate(controls, 1):
        options = _asking(control, report)
        if options:  # which would else be true of all controls
            files.append(f"control-{place}.safetensors")
            yield _line(["observe", _SUITE, _path(control.path), *options, "-o", files[-1]])
        else:
            files.append(_path(control.path))
    words = ["calibrate", _SUITE]
    strata = [control.stratum for control in controls]
    # In their order, which the calibration's digest depends on; those of no stratum come first.
    for stratum in sorted(dict.fromkeys(strata), key=lambda stratum: stratum is not None):
        of_it = [file for file, other in zip(files, strata, strict=True) if other == stratum]
        words += of_it if stratum is None else _of_stratum(stratum, of_it)
    # All that are in the report counted, however far from the victim's their accuracy is.
    yield _line([*words, "--match", report.calibration.match, "--far", "-o", _CALIBRATION])


def _of_stratum(stratum: str, files: Sequence[str]) -> Iterator[str]:
    # Names with a comma in them are no list.
    listed = [",".join(files)] if not any("," in file for file in files) else files
    for names in listed:
        yield from ("--stratum", f"{stratum}={names}")


def _judge(report: AuditReport) -> Iterator[str]:
    how = _judging(report)
    by = ["--calibration", _CALIBRATION] if report.calibration.controls else []
    for place, (options, suspects) in enumerate(groupby(report.suspects, partial(_asking, report=report)), 1):
        paths = [_path(suspect.path) for suspect in suspects]
        yield _line(["judge", _SUITE, *paths, *by, *how, *options, "--json", f"report-{place}.json"])


def _judging(report: AnyReport) -> list[str]:
    words = list(_rules(report))
    suspects, fleet = (report.suspects, report.fleet) if isinstance(report, AuditReport) else ((), UNSET)
    budgets = [suspect.sequential.budget for suspect in suspects if suspect.sequential]
    if budgets:
        return [*words, "--sequential", "--budget", str(budgets[0])]
    words += ["--require-layers"] if report.require_layers else []
    words += ["--groups", report.groups, *(["--fdr", repr(fleet.fdr)] if fleet else [])]
    # Keys are those of the suite.
    metrics = [_named(name) for name, metric in report.metrics.items() if metric.group != "marks"]
    return [*words, *(["--metric", ",".join(metrics)] if metrics else [])]


def _rules(report: AnyReport) -> Iterator[str]:
    rules = report.rules if isinstance(report, PowerReport) else UNSET
    if rules is UNSET or len(rules) < 2:
        yield from ("--rule", _named(report.rule), *_options("--rule-option", report.rule_options))
        return
    yield from ("--rule", ",".join(_named(rule.rule) for rule in rules))
    for rule in rules:
        yield from _options("--rule-option", rule.rule_options, f"{_named(rule.rule)}.")


def _asking(model: ControlEntry | SuspectEntry, report: AuditReport) -> list[str]:
    # What was said of a model, not what was found, nor what is as for the victim.
    inferred, words = model.inferred, list[str]()
    if model.classes is not None and "classes" not in inferred:
        words += ["--classes", ",".join(map(str, model.classes))]
    preprocessing = model.preprocessing
    said = preprocessing is not None and preprocessing != report.victim.preprocessing
    if preprocessing is not None and said and "preprocessing" not in inferred:
        words += ["--suspect-input", preprocessing.typed()]
    return words


def _options(option: str, values: Json, owner: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _options(option, value, f"{owner}{name}.")
        else:
            yield from (option, f"{owner}{name}={value if isinstance(value, str) else json.dumps(value)}")


def _path(text: str) -> str:
    # A name that begins like an option is none.
    return f"./{text}" if text.startswith("-") else text


def _named(component: str) -> str:
    # No component has a name that begins like an option, but a stranger's report may say so.
    return "NAME" if component.startswith("-") else component


def _line(words: Sequence[str], command: str = "deepjudge") -> str:
    # Cleaned first: what is left in quotes is then all that a shell sees.
    return " ".join([command, *(shlex.quote(clean(word, LONGEST_LINE)) for word in words)])
