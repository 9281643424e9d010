"""What a user may type."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from deepjudge_core.cli.exports import add_options
from deepjudge_core.cli.plan import size
from deepjudge_core.components.kinds import ALL_METRICS
from deepjudge_core.components.strata import Stratum
from deepjudge_core.errors import UsageError
from deepjudge_core.judging.neurons import DEFAULT_MATCH, Match
from deepjudge_core.report.documents import AUDIT, POWER
from deepjudge_core.suites.generation import DEFAULT_GENERATORS
from deepjudge_core.text import LONGEST_LINE, clean
from deepjudge_core.version import VERSION

EXIT_STATUS = """exit status:
  0  no suspect is a copy
  1  at least one suspect is a copy
  2  the command line, or an AUDIT.toml, is wrong
  3  no copy was found, but a verdict is inconclusive
  4  a model, plugin or file failed (the other suspects are still judged), or a bundle is not verified
"""
DEFAULT_RULE, SEQUENTIAL_RULE = "voting", "prediction-bound"
_MODELS = "a model file; a folder or a glob stands for all models in it"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, which may hold file names of somebody else."""
        if "arguments are required" in message:
            message += (
                " (options that take several names, such as --metric, stand behind what they are to be told from)"
            )
        if "unrecognized arguments: --match" in message:
            message += " (neurons are matched as 'deepjudge calibrate --match' says, of suspects as of controls)"
        super().error(clean(message, LONGEST_LINE))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What was typed.

    Raises:
        SystemExit: For what cannot be parsed, after saying why.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    file = _audit_file(words)
    if file is None:
        return build_parser().parse_args(words)
    arguments, others = build_parser(of_file=True).parse_known_args(words)
    # What is said twice would have to agree.
    beside = [word for word in (*others, str(arguments.file)) if Path(word) != Path(file)]
    if beside:
        arguments.refuse(
            f"{file} says all of an audit: expected nothing but -o and --debug beside it, found {beside[0]}"
        )
    return arguments


def _audit_file(words: list[str]) -> str | None:
    if words[:1] != ["audit"]:
        return None
    pairs = itertools.pairwise(words)
    named = (word for before, word in pairs if before not in ("-o", "--output") and not word.startswith("-"))
    return next((word for word in named if word.lower().endswith(".toml")), None)


def build_parser(*, of_file: bool = False) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        of_file: Whether ``audit`` takes a file that says all, in place of models and options.
    """
    parser = _Parser(
        prog="deepjudge",
        description="Tell whether a suspect deep-learning model is a copy of yours.",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"deepjudge {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    suite = _command(commands, "suite", "make test cases from the victim")
    suite.add_argument("victim", type=Path, metavar="VICTIM", help="your model")
    _suite_options(suite)
    _opening(suite, "the victim")
    _input_layout(suite, "the inputs, and of a victim that does not say")
    _sandbox(suite)
    _output(suite, "SUITE.safetensors")

    observe = _command(commands, "observe", "let a model answer a suite where it lives, to be judged elsewhere")
    observe.add_argument("suite", type=Path, metavar="SUITE")
    observe.add_argument("model", metavar="MODEL", help="a model file")
    _asking(observe)
    _sandbox(observe)
    _output(observe, "OBSERVATION.safetensors")

    calibrate = _command(commands, "calibrate", "let the controls answer a suite")
    calibrate.add_argument("suite", type=Path, metavar="SUITE")
    calibrate.add_argument("controls", nargs="*", metavar="CONTROL", help=f"independent of the victim: {_MODELS}")
    _stratum(calibrate)
    _match(calibrate)
    _asking(calibrate)
    _sandbox(calibrate)
    _output(calibrate, "CALIBRATION.safetensors")

    judge = _command(commands, "judge", "judge suspects", epilog=EXIT_STATUS)
    judge.add_argument("suite", type=Path, metavar="SUITE")
    judge.add_argument("suspects", nargs="+", metavar="SUSPECT", help=f"{_MODELS}; or a stored observation")
    judge.add_argument("--calibration", type=Path, metavar="CALIBRATION", help="from 'deepjudge calibrate'")
    _judge_options(judge)
    _fleet(judge)
    _sequential(judge)
    _sandbox(judge)
    _commitment(judge)
    _bundle(judge)
    judge.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON; '-' for standard output")
    add_options(judge, AUDIT)
    _output(judge, "DIR", required=False, text="write a bundle, which others can check, to this folder")

    audit = _command(commands, "audit", "suite, calibrate and judge in one", epilog=EXIT_STATUS)
    audit.usage = (
        "%(prog)s VICTIM SUSPECT... --controls CONTROL... --inputs FILE.npz [options] -o DIR\n"
        "       %(prog)s AUDIT.toml [-o DIR]"
    )
    if of_file:
        audit.add_argument("file", type=Path, metavar="AUDIT.toml", help="as 'deepjudge init' writes one")
        _output(audit, "DIR", required=False)
        audit.set_defaults(refuse=audit.error)
    else:
        audit.add_argument("victim", type=Path, metavar="VICTIM", help="your model")
        audit.add_argument("suspects", nargs="+", metavar="SUSPECT", help=_MODELS)
        audit.add_argument(
            "--controls", nargs="+", action="extend", default=[], metavar="CONTROL", help="models independent of yours"
        )
        _stratum(audit)
        _suite_options(audit)
        _match(audit)
        _judge_options(audit)
        _fleet(audit)
        _sandbox(audit)
        _commitment(audit)
        _bundle(audit)
        add_options(audit, AUDIT)
        _output(audit, "DIR")

    commit = _command(commands, "commit", "write down by what suspects are going to be judged, before they are asked")
    commit.add_argument("suite", type=Path, metavar="SUITE")
    commit.add_argument("calibration", type=Path, nargs="?", metavar="CALIBRATION", help="from 'deepjudge calibrate'")
    _judgement(commit)
    _fleet(commit)
    _sequential(commit)
    _key(commit, "the commitment")
    commit.add_argument(
        "--tsa",
        dest="request",  # elsewhere it is what is read
        type=Path,
        metavar="REQUEST.tsq",
        help="write what asks a time-stamping authority (RFC 3161) to say since when the commitment is there",
    )
    _output(commit, "COMMITMENT.json")

    verify = _command(commands, "verify", "check the bundle of an audit, without any model", epilog=EXIT_STATUS)
    verify.add_argument("bundle", type=Path, metavar="DIR", help="what 'deepjudge audit' wrote")
    verify.add_argument(
        "--public-key", type=Path, metavar="PEM", help="who has to have signed it: an Ed25519 public key"
    )
    verify.add_argument(
        "--tsa-certificate",
        type=Path,
        metavar="PEM",
        help="which authority has to have stamped the commitment: its root certificate",
    )

    zoo = _command(commands, "zoo", "make controls and stolen models of the victim")
    zoo.add_argument("victim", type=Path, metavar="VICTIM", help="your model")
    _zoo_options(zoo)
    _output(zoo, "ZOO")

    power = _command(commands, "power", "say how many of a zoo's stolen models an audit would notice")
    power.add_argument("suite", type=Path, metavar="SUITE")
    power.add_argument("zoo", type=Path, metavar="ZOO", help="a folder that 'deepjudge zoo' made")
    _match(power)
    _judgement(power)
    _sandbox(power)
    power.add_argument("--far", action="store_true", help="count models whose accuracy is far below the victim's, too")
    add_options(power, POWER)
    _output(power, "DIR")

    report = _command(commands, "report", "write a stored report as a page for people")
    report.add_argument("report", type=Path, metavar="REPORT.json", help="from 'judge --json', 'audit' or 'power'")
    add_options(report)

    init = _command(commands, "init", "write an example of a file for 'deepjudge audit', to be filled in")
    init.add_argument(
        "file", type=Path, nargs="?", default=Path("audit.toml"), metavar="FILE.toml", help="(default: audit.toml)"
    )

    plugins = _command(commands, "plugins", "list what is installed, and what of it fails")
    plugins.add_argument("--json", action="store_true", help="as JSON")

    show = _command(commands, "show", "print what one of deepjudge's files holds")
    show.add_argument("file", type=Path, metavar="FILE", help="a suite, an observation, a calibration or a report")
    return parser


def _command(
    commands: "argparse._SubParsersAction[_Parser]", name: str, text: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return command


def _suite_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--inputs", type=Path, required=True, metavar="FILE.npz", help="labelled inputs")
    _labelled(command)
    command.add_argument(
        "--training-inputs",
        metavar="FILE.npz:KEY",
        help="inputs over which neuron ranges are taken (default: x_train beside x_test, else the seeds)",
    )
    command.add_argument("-n", type=int, default=1000, metavar="N", help="number of seeds (default: 1000)")
    command.add_argument(
        "--order",
        choices=("high", "low", "balanced"),
        default="high",
        help="seeds of highest or lowest confidence, or highest in each class in turn (default: high)",
    )
    command.add_argument(
        "-g",
        "--generator",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"what makes the test cases (default: {' '.join(DEFAULT_GENERATORS)})",
    )
    command.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="GENERATOR.NAME=VALUE",
        help="an option of a generator, such as pgd.eps=0.1",
    )
    command.add_argument(
        "--layers", default="auto", metavar="auto|NAME,...", help="taps of the victim to compare (default: auto)"
    )
    command.add_argument("--seed", type=int, default=0, help="of all randomness (default: 0)")


def _labelled(command: argparse.ArgumentParser) -> None:
    command.add_argument("--x", metavar="KEY", help="key of the inputs (default: the usual ones)")
    command.add_argument("--y", metavar="KEY", help="key of the labels (default: the usual ones)")
    command.add_argument("--scale", type=float, default=1.0, help="divide the inputs by this, such as 255")
    command.add_argument(
        "--bounds",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="range of the inputs after scaling (default: that of uint8; 0..1; -1..1; or their own)",
    )


class _Divided(argparse.Action):
    """Takes a stratum and the controls that are of it."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Add them to what was given before."""
        stratum, *controls = values
        if stratum not in get_args(Stratum):
            parser.error(f"{option}: expected {', '.join(get_args(Stratum))}, found {stratum!r}")
        if not controls:
            parser.error(f"{option} {stratum}: expected the controls that are of it, found none")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), (stratum, controls)])


def _stratum(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--stratum",
        nargs="+",
        action=_Divided,
        default=[],
        metavar=("STRATUM", "CONTROL"),
        help="more controls, and what they have in common with the victim, what brings them nearest to it where it is "
        f"more than one: {', '.join(get_args(Stratum))}",
    )


def _match(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--match",
        choices=get_args(Match),
        default=DEFAULT_MATCH,
        help="compare neurons of controls and suspects by place, or each with that of the victim's it is most like "
        f"(default: {DEFAULT_MATCH})",
    )


def _zoo_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, required=True, metavar="TRAIN.npz", help="labelled training data")
    command.add_argument(
        "--test",
        type=Path,
        metavar="TEST.npz",
        help="labelled test data (default: x_test beside x_train, else every tenth row of the training data)",
    )
    command.add_argument(
        "--auxiliary", type=Path, metavar="OTHER.npz", help="inputs of another task, which a thief has"
    )
    _labelled(command)
    command.add_argument(
        "--split",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of the training data, from its start, that the victim was trained on (default: 0.5)",
    )
    command.add_argument(
        "--controls",
        type=int,
        default=12,
        metavar="N",
        help="number of controls, half of them trained on the victim's rows, half on others (default: 12)",
    )
    command.add_argument("--attacks", default="all", metavar="all|NAME,...", help="(default: every installed one)")
    command.add_argument("--repeat", type=int, default=3, metavar="N", help="models of each attack (default: 3)")
    command.add_argument("--epochs", type=int, default=5, help="of training a control (default: 5)")
    command.add_argument("--rate", type=float, default=2e-3, help="greatest rate of training one (default: 0.002)")
    command.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="ATTACK.NAME=VALUE",
        help="an option of an attack, such as ft-al.epochs=3",
    )
    command.add_argument(
        "--suite",
        type=Path,
        metavar="SUITE",
        help="the suite that adaptive attacks know (default: one made from the test data, kept in the zoo)",
    )
    command.add_argument("--seed", type=int, default=0, help="of all randomness (default: 0)")
    _opening(command, "the victim")
    _input_layout(command, "the inputs, and of a victim that does not say")


def _judge_options(command: argparse.ArgumentParser) -> None:
    _judgement(command)
    _asking(command)


def _judgement(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--metric",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"metrics; '{ALL_METRICS}' for every installed one (default: those that need not be named)",
    )
    command.add_argument("--rule", metavar="NAME", help=f"judgement rule (default: {DEFAULT_RULE})")
    command.add_argument(
        "--rule-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the rule, such as alpha.jsd=0.8 or bound=mean",
    )
    command.add_argument(
        "--groups",
        choices=("separate", "joint"),
        default="separate",
        help="judge black-box and white-box metrics apart, or by one vote (default: separate)",
    )


def _fleet(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--fdr",
        type=float,
        metavar="SHARE",
        help="false discovery rate over all suspects, such as 0.05, which takes the place of the rule's level",
    )


def _sequential(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--sequential",
        action="store_true",
        help="ask the adversarial cases one by one, for labels alone, and stop as soon as these say enough; the rule "
        f"(default: {SEQUENTIAL_RULE}) bounds how often honest models agree with yours",
    )
    command.add_argument("--budget", type=int, metavar="N", help="cases that --sequential may ask (default: all)")


def _commitment(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--commitment",
        type=Path,
        metavar="COMMITMENT",
        help="from 'deepjudge commit': refuse to judge by anything else",
    )
    command.add_argument(
        "--tsa",
        type=Path,
        metavar="RESPONSE.tsr",
        help="what an authority answered to the request of 'deepjudge commit --tsa': the commitment's time-stamp",
    )


def _key(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--key", type=Path, metavar="PEM", help=f"sign {what}: an Ed25519 private key")


def _bundle(command: argparse.ArgumentParser) -> None:
    _key(command, "the bundle")
    command.add_argument(
        "--without-observations",
        action="store_true",
        help="leave test cases and answers out of the bundle: they go to the folder DIR-withheld",
    )


def _asking(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--layer-map",
        action="append",
        default=[],
        metavar="LAYER=TAP",
        help="which tap of the model answers a layer of the suite, where place, width and CKA do not tell",
    )
    command.add_argument(
        "--classes",
        type=_classes,
        metavar="I,J,...",
        help="the model's output, counted from 0, for each of the victim's classes (not of the controls of an audit)",
    )
    command.add_argument(
        "--suspect-input",
        metavar="scale=S,mean=M:M:M,std=D:D:D",
        help="what the model expects of inputs in 0..1: (input * scale - mean) / std, with colons between the values "
        "of channels (not of the controls of an audit)",
    )
    command.add_argument(
        "--no-infer-input",
        action="store_true",
        help="do not look for a standard preprocessing where a model's accuracy on the seeds is near chance",
    )
    _opening(command, "the model (in an audit, of the suspects only)")
    _input_layout(command, "the model's inputs, where it does not say")


def _opening(command: argparse.ArgumentParser, whose: str) -> None:
    command.add_argument(
        "--output-name",
        metavar="NAME",
        help=f"which output of {whose} holds the scores, where it is ONNX and the first that fits does not",
    )
    command.add_argument(
        "--arch",
        metavar="MODULE:FUNCTION",
        help=f"what makes the PyTorch module that a file of weights (.safetensors, .pth, .pt) of {whose} belongs to: "
        "your own code, found from the current folder",
    )


def _sandbox(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--no-sandbox",
        action="store_true",
        help="open models in this process, where a file may do what you can: for your own files only",
    )
    group.add_argument(
        "--require-sandbox",
        action="store_true",
        help="refuse models where this system does not have the full sandbox",
    )
    command.add_argument(
        "--memory",
        type=_size,
        metavar="SIZE",
        help="for each model, beside its framework, such as 2GiB (default: 8GiB, or half of the machine's)",
    )
    command.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="for opening a model, and for each batch of its answers (default: 300)",
    )


def _size(text: str) -> int:
    try:
        return size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _input_layout(command: argparse.ArgumentParser, whose: str) -> None:
    command.add_argument(
        "--input-layout",
        choices=("channels_first", "channels_last"),
        help=f"where the channels are of {whose}; needed for shapes that can be read both ways",
    )


def _classes(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers as in 2,0,1, found {text!r}") from None


def _output(command: argparse.ArgumentParser, what: str, *, required: bool = True, text: str | None = None) -> None:
    command.add_argument("-o", "--output", type=Path, required=required, metavar=what, help=text)
