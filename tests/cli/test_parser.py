"""What may be typed: lists, order, hints, completion, and what is said of what cannot be understood."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toys
from commands import HOW, MADE, Cli

from deepjudge_core.cli.commands import COMMANDS
from deepjudge_core.cli.program import parse
from deepjudge_core.errors import UsageError


def parsed(*words: str) -> Any:
    return parse(words, COMMANDS).command


def refused(*words: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(words, COMMANDS)
    return caught.value


SUITE = ("suite", "v", "--inputs", "i.npz", "-o", "s")


@pytest.mark.parametrize(
    "words",
    [
        ("-g", "pgd,cw"),
        ("-g", "pgd", "-g", "cw"),
        ("--generator", "pgd", "-g", "cw"),
        ("--generator=pgd, cw",),
        ("-gpgd,cw",),
    ],
)
def test_lists_have_commas_or_repeat_the_option(words: tuple[str, ...]) -> None:
    assert parsed(*SUITE, *words).suite.generators == ("pgd", "cw")


def test_an_option_takes_one_word() -> None:
    command = parsed(
        "judge", "s", "--metric", "jsd,robd", "a.onnx", "--classes", "2,0,1", "b.onnx", "-o", "d", "c.onnx"
    )
    assert command.judging.metrics == ("jsd", "robd")
    assert command.suspects == ("a.onnx", "b.onnx", "c.onnx")
    assert command.query.classes == (2, 0, 1)
    assert parsed("judge", "--calibration", "c", "s", "--json", "-", "--", "-x.onnx").suspects == ("-x.onnx",)
    assert parsed(*SUITE, "--bounds", "-1,1").inputs.bounds == (-1.0, 1.0)
    assert parsed(*SUITE, "--bounds", "0:-1:2,1:1:3.5").inputs.bounds == ((0, -1, 2), (1, 1, 3.5))
    assert parsed(*SUITE, "--bounds", "0,1:2").inputs.bounds == (0, (1, 2))
    assert parsed(*SUITE, "--option", "pgd.eps=0.1", "--option", "pgd.steps=3").suite.options == {
        "pgd": {"eps": "0.1", "steps": "3"}
    }


def test_a_file_that_is_there_is_taken_with_its_commas(cli: Cli) -> None:
    shutil.copy("honest.toy", "a,b.toy")
    words = ("audit", "v", "a,b.toy", "x,y.toy", "--inputs", "i", "-o", "o", "--controls")
    assert parsed(*words, "a,b.toy").controls == ("a,b.toy",)
    assert parsed(*words, "controls,c.toy", "--controls", "a,b.toy").controls == ("controls", "c.toy", "a,b.toy")
    assert parsed(*words, "c").suspects == ("a,b.toy", "x,y.toy")
    [group, other] = parsed(*words, "c", "--stratum", "same-data=a,b.toy", "--stratum", "other-data=c,d").strata
    assert (group.stratum, group.names) == ("same-data", ("a,b.toy",))
    assert (other.stratum, other.names) == ("other-data", ("c", "d"))


@pytest.mark.parametrize(
    "words", [("--debug", "judge", "s", "m"), ("judge", "--debug", "s", "m"), ("judge", "s", "m", "--debug")]
)
def test_global_options_stand_in_front_or_behind(words: tuple[str, ...]) -> None:
    line = parse(words, COMMANDS)
    assert (line.debug, line.command.called() if line.command else "") == (True, "judge")
    assert not parse(("plugins",), COMMANDS).debug


def test_the_rule_of_sequential_judging() -> None:
    judge = ("judge", "s", "m")
    assert parsed(*judge).judging.rule == "voting"
    assert parsed(*judge, "--sequential").judging.rule == "prediction-bound"
    assert parsed(*judge, "--sequential", "--rule", "conformal").judging.rule == "conformal"


@pytest.mark.parametrize(
    ("words", "code", "facts"),
    [
        ((), "missing-value", ("suite", "show")),
        (("sute",), "unknown-name", ("sute", "suite")),
        (("--deubg", "suite"), "unknown-option", ("--deubg",)),
        ((*SUITE, "--inptus", "x"), "unknown-option", ("--inptus", "--inputs")),
        ((*SUITE, "-q"), "unknown-option", ("-q",)),
        (("suite",), "missing-value", ("VICTIM", "--inputs", "--out")),
        ((*SUITE, "-n"), "missing-value", ("-n",)),
        ((*SUITE, "--order", "--seed", "1"), "missing-value", ("--order", "--seed")),
        ((*SUITE, "-n", "many"), "wrong-value", ("-n", "many")),
        ((*SUITE, "--order", "best"), "wrong-value", ("--order", "high", "low", "balanced", "best")),
        ((*SUITE, "--arch", "nets.py"), "wrong-value", ("--arch", "nets.py")),
        ((*SUITE, "--memory", "1KiB"), "wrong-value", ("--memory", "1KiB")),
        ((*SUITE, "--no-sandbox", "--require-sandbox"), "conflict", ("--no-sandbox",)),
        # As it was written before.
        ((*SUITE, "-g", "pgd", "neuron-corners"), "wrong-usage", ("neuron-corners", "-g pgd,neuron-corners")),
        ((*SUITE, "--bounds", "0", "1"), "wrong-usage", ("1",)),
        (("commit", "s", "-o", "c", "--tsa", "t"), "unknown-option", ("--tsa", "--tsa-request")),
        (("judge", "s", "m", "--tsa", "t"), "unknown-option", ("--tsa", "--tsa-response")),
        (("judge", "s", "m", "--output-name", "t"), "unknown-option", ("--output-name", "--output")),
        (("commit", "s", "--output", "t"), "unknown-option", ("--output", "--out")),
        (("suite", "v", "--inputs", "i", "--output", "s"), "missing-value", ("--out", "--output")),
        (
            ("zoo", "v", "--data", "d", "-o", "z", "--controls", "3"),
            "unknown-option",
            ("--controls", "--control-count"),
        ),
        (("judge", "s", "m", "--match", "none"), "unknown-option", ("--match", "calibrate")),
    ],
)
def test_what_cannot_be_understood(words: tuple[str, ...], code: str, facts: tuple[str, ...]) -> None:
    error = refused(*words)
    assert error.code == code, error
    missing = [fact for fact in facts if fact not in str(error)]
    assert not missing, error


def test_a_wrong_line_is_one_line_and_the_status_2(cli: Cli) -> None:
    cli.refuses(2, "unknown-option", *SUITE, "--a\x1b[31m\n", facts=("--a",))
    cli.refuses(2, "unknown-name", "ju\x1bdge")


def test_json_is_a_file_everywhere(cli: Cli) -> None:
    assert parsed("plugins", "--json").json == Path("-")
    assert parsed("plugins", "--json", "p.json").json == Path("p.json")
    assert parsed("plugins", "--json", "-").json == Path("-")
    assert parsed("plugins").json is None


def test_nothing_is_written_over_what_is_read(cli: Cli) -> None:
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    for words in (
        ("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "./in.npz"),
        ("suite", "victim.toy", "--inputs", "in.npz", *MADE, "--training-inputs", "copy.toy:x", "-o", "copy.toy"),
        ("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "victim.toy"),
        ("observe", "s.safetensors", "copy.toy", "-o", "copy.toy"),
        ("calibrate", "s.safetensors", "--stratum", "same-data=copy.toy", "-o", "copy.toy"),
        ("judge", "s.safetensors", "copy.toy", *HOW, "--json", "s.safetensors"),
        ("judge", "s.safetensors", "copy.toy", *HOW, "--html", "copy.toy"),
    ):
        cli.refuses(2, "would-overwrite", *words)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deepjudge ca", ["calibrate"]),
        ("deepjudge judge --me", ["--metric", "--memory"]),
        ("deepjudge suite v --order b", ["balanced"]),
        ("deepjudge suite v -g pgd,neu", ["pgd,neuron-corners"]),
        ("deepjudge judge s --rule voti", ["voting"]),
        ("deepjudge new-plugin x --kind metric,ru", ["metric,rule"]),
    ],
)
def test_a_shell_completes(line: str, expected: list[str]) -> None:
    words = line.split(" ")
    run = subprocess.run(
        [sys.executable, "-c", "import sys; from deepjudge_core.cli.main import main; sys.exit(main([]))"],
        env={
            **os.environ,
            "_DEEPJUDGE_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(toys.__file__).parent)]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert sorted(text.partition(",")[2] for text in run.stdout.splitlines()) == sorted(expected)
