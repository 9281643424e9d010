"""The file of an audit: what it may hold, what is said of its mistakes, and that it does what it says."""

import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toys
from commands import HOW, MADE, WHOLE, Cli, write
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Zoo, inputs
from networks.architectures import BOUNDS, CLASSES
from places import ROOT
from refusals import expect_facts

from deepjudge_core import (
    Access,
    Cases,
    Generator,
    JudgeSettings,
    Preprocessing,
    SuiteSettings,
    Task,
    hookimpl,
    load_registry,
    load_suite,
)
from deepjudge_core.auditing.session import Session
from deepjudge_core.cli.auditfile import example as example_module
from deepjudge_core.cli.auditfile.keys import Key, Table, document
from deepjudge_core.cli.auditfile.lines import Keys, line_of
from deepjudge_core.cli.auditfile.reading import AuditFileError
from deepjudge_core.cli.auditfile.reading import read_plan as read_plan_of
from deepjudge_core.cli.commands.audit import AuditCommand
from deepjudge_core.cli.plan import Plan
from deepjudge_core.components.options import options_of
from deepjudge_core.components.registry import Registry
from deepjudge_core.suites.settings import DEFAULT_GENERATORS, InputSettings

SCHEMA = document(AuditCommand)


def read_plan(path: Path, output: Path | None, session: Session) -> Plan:
    return read_plan_of(path, output, session, AuditCommand)


def example() -> str:
    return example_module.example(SCHEMA, Session(load_registry()))


DOCS = (ROOT / "docs" / "reference" / "audit-file.md").read_text("utf-8")

# The lines.


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("a",), 2),
        (("a", 2), 2),
        (("t",), 6),
        (("t", "b"), 7),
        (("t", "b", "c"), 7),
        (("t", "d"), 12),
        (("many",), 14),
        (("many", 0), 14),
        (("many", 1), 17),
        (("many", 1, "x"), 18),
        (("many", 1, "inner", "deep"), 20),
        (("many", 2), None),
        (("a", "b"), None),
        (("t", "x"), None),
        ((), None),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_line_of_a_key(keys: Keys, line: int | None, ending: str) -> None:
    text = '''# first
a = [
  1, 2,
  # three
  3 ]
[t]
b.c = """
[no]
table = "here"
"""

d = { e = 1 }  # and so on

[[many]]
x = 1

[[many]]
x = 2
[many.inner]
"deep" = [ [1], [2] ]'''
    assert line_of(text.replace("\n", ending), keys) == line


VALUES = st.sampled_from(
    ["1", '"text"', '"""\nlines\n[no.table]\nx = 1\n"""', "[\n 1,\n\n # two\n 2 ]", "{ z = 1 }", "'''\n''\n'''", "1e3"]
)
FILLING = st.lists(st.sampled_from(["", "# comment", "  ", '# k0 = "x"']), max_size=2)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Keys, int]]:
    """A document, and the line of each of its keys."""
    lines: list[str] = []
    known: dict[Keys, int] = {}

    def put(statement: str, *keys: Keys) -> None:
        lines.extend(draw(FILLING))
        for at in keys:
            known.setdefault(at, len(lines) + 1)
        lines.extend(statement.split("\n"))

    def fill(at: Keys) -> None:
        for place in range(draw(st.integers(0, 3))):
            put(f"k{place} = {draw(VALUES)}", (*at, f"k{place}"))

    fill(())
    counts: dict[str, int] = {}
    for place in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            name = draw(st.sampled_from(["many", "others"]))
            counts[name] = counts.get(name, 0) + 1
            at: Keys = (name, counts[name] - 1)
            put(f"[[{name}]]", (name,), at)
        else:
            at = (f"t{place}", "sub")
            put(f"[t{place}.sub]", (f"t{place}",), at)
        fill(at)
    return "\n".join(lines), known


@settings(max_examples=60, deadline=None)
@given(documents())
def test_the_line_of_every_key_of_any_document(document: tuple[str, dict[Keys, int]]) -> None:
    text, known = document
    tomllib.loads(text)
    assert {keys: line_of(text, keys) for keys in known} == known


# The example.


def uncommented(text: str) -> str:
    return re.sub(r"^#(?![ :]|$)", "", text, flags=re.MULTILINE)


def keys_of(table: Table, at: str = "") -> Iterator[str]:
    for name, entry in table.keys.items():
        if isinstance(entry, Key):
            yield f"{at}{name}"
        else:
            yield from keys_of(entry, f"{at}{name}.")


def keys_in(table: Table, values: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for name, value in values.items():
        entry = table.keys[name]
        if isinstance(entry, Key):
            yield f"{at}{name}"
        else:
            for part in value if entry.many else [value]:
                yield from keys_in(entry, part, f"{at}{name}.")


SEALED = ("commitment.json", "commitment.tsr", "key.pem", "victim.json", "victim.tsr")


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the example names."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "victim.onnx",
        "inputs.npz",
        "train.npz",
        "controls/c.onnx",
        "suspects/s.onnx",
        "other/suspect.safetensors",
        "base.safetensors",
        "adi.key.safetensors",
        *SEALED,
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("")
    return tmp_path


def test_the_example_has_all_keys() -> None:
    shown = set(keys_in(SCHEMA, tomllib.loads(uncommented(example()))))
    known = set(keys_of(SCHEMA))
    # It says of controls that they may have the keys of suspects.
    same = {key.replace("suspects.", "controls.") for key in shown}
    of_suspects_alone = {f"controls.{name}" for name in ("stored", "published", "budget")}
    assert shown <= known == (shown | same) - of_suspects_alone


def test_the_example_is_valid_with_and_without_its_comments(named: Path, registry: Registry) -> None:
    for text in (example(), uncommented(example())):
        Path("audit.toml").write_text(re.sub(r"^fdr = .*$", "", text, flags=re.MULTILINE))  # takes another rule
        plan = read_plan(Path("audit.toml"), None, Session(registry))
        assert [s.name for s in plan.suspects][:1] == ["suspects/s.onnx"]
    [other] = plan.suspects
    assert other.query.classes == (2, 0, 1)
    assert other.query.preprocessing is not None
    assert other.query.preprocessing.mean == (0.485, 0.456, 0.406)
    assert (other.query.layout, other.query.layers) == ("channels_first", {"relu_1": "activation_1"})
    stated = {"output": "logits", "arch": "networks.py:make", "fix": {"sr": 16000}, "base": "base.safetensors"}
    assert other.options == stated | {"budget": 2000}
    assert plan.victim.options == stated


def test_the_example_shows_the_defaults(named: Path, registry: Registry) -> None:
    Path("audit.toml").write_text(example())
    plan = read_plan(Path("audit.toml"), None, Session(registry))
    assert plan.inputs == InputSettings(path=Path("inputs.npz"))
    assert vars(plan.suite) | {"options": {}} == vars(SuiteSettings())
    assert vars(plan.judge.settings) | {"rule_options": None} == vars(JudgeSettings())
    generators = tomllib.loads(example())["generators"]  # as they stand there they say no more than none
    chosen = {**generators, "voting": plan.judge.settings.rule_options or {}}
    shown = [(owner, name, value) for owner, options in chosen.items() for name, value in options.items()]
    components = [*map(registry.generators.__getitem__, DEFAULT_GENERATORS), registry.rules["voting"]]
    defaults = [(one.name, option.name, option.default) for one in components for option in options_of(one)]
    assert shown == [(one, name, "none" if value is None else value) for one, name, value in defaults]


def test_a_sandbox_that_is_required_has_to_be_used(cli: Cli) -> None:
    cli.confined = True
    write(f"{WHOLE}\n[sandbox]\nuse = false\nrequired = true\n")
    _, _, err = cli("audit", "audit.toml")
    assert err.startswith("deepjudge: audit.toml:")
    assert all(fact in err for fact in (": sandbox: ", "--no-sandbox", "(audit-file)"))


def test_the_file_in_the_documentation_has_no_other_keys() -> None:
    [block] = re.findall(r"^```toml\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    assert set(keys_in(SCHEMA, tomllib.loads(block))) <= set(keys_of(SCHEMA))


def test_init(cli: Cli) -> None:
    status, out, err = cli("init")
    assert (status, out, err) == (0, "audit.toml: name your files in it, then run: deepjudge audit audit.toml\n", "")
    assert Path("audit.toml").read_text() == example()
    assert cli("init", "new/mine.toml")[0] == 0
    Path("mine.toml").write_text("mine")
    cli.refuses(2, "would-overwrite", "init", "mine.toml", facts=("mine.toml",))
    cli.refuses(2, "wrong-value", "init", "audit.json", facts=("audit.json", ".toml"))
    cli.refuses(4, "cannot-write", "init", "in.npz/a.toml", facts=("in.npz/a.toml",))
    # What is to be filled in is said, each with its line.
    _, _, err = cli("audit", "audit.toml")
    lines = example().splitlines()
    said = [re.match(r"deepjudge: audit\.toml:(\d+): [\w.[\]]+: (\S+): ", line) for line in err.splitlines()]
    assert [lines[int(found[1]) - 1] for found in said if found] == [
        f'path = "{name}"' for name in ("victim.onnx", "inputs.npz", "suspects")
    ]


# What it does.


@pytest.mark.parametrize("match", ["none", "neurons"])
def test_an_audit_by_a_file_is_that_of_the_same_options(cli: Cli, match: str) -> None:
    typed = ("audit", "victim.toy", "copy.toy", "honest.toy", "--inputs", "in.npz", *MADE, *HOW, "--match", match)
    found = cli(*typed, "--controls", "controls", "-o", "typed")
    assert json.loads(Path("typed/report.json").read_text())["calibration"]["match"] == match
    whole = f'match = "{match}"\n{WHOLE}'
    write(whole)
    status, out, err = cli("audit", "audit.toml")
    assert (status, err) == (1, "")
    assert out.splitlines()[-1] == "page: out/report.html"
    assert out == found[1].replace("typed/", "out/")
    for name in ("suite.safetensors", "calibration.safetensors", "report.json"):
        assert Path("out", name).read_bytes() == Path("typed", name).read_bytes()
    shutil.rmtree("out")
    assert cli("audit", "audit.toml", "-o", "other")[0] == 1
    assert Path("other/report.json").read_bytes() == Path("typed/report.json").read_bytes()
    assert not Path("out").exists()
    # As an editor of Windows writes it.
    text = whole.replace('output = "out"\n', "").replace("\n", "\r\n")
    Path("audit.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert cli("audit", "audit.toml", "-o", "third")[0] == 1
    assert Path("third/report.json").read_bytes() == Path("typed/report.json").read_bytes()


def test_names_are_found_from_the_files_folder(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    write(WHOLE)
    cli("audit", "audit.toml", "-o", "here")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    status, out, _ = cli("audit", "../audit.toml")
    assert (status, out.splitlines()[-1]) == (1, "page: ../out/report.html")
    assert cli("audit", "../audit.toml", "-o", "mine")[0] == 1
    assert Path.cwd().name == "elsewhere"
    reports = [Path(folder, "report.json").read_bytes() for folder in ("../here", "../out", "mine")]
    assert reports[0] == reports[1] == reports[2]
    # And all is as it was where something fails.
    write(WHOLE, ("copy.toy", "none.toy"), path="../bad.toml")
    cli.refuses(2, "audit-file", "audit", "../bad.toml", facts=("../bad.toml:23: suspects[0].path: none.toy: ",))
    assert Path.cwd().name == "elsewhere"


def test_each_model_has_its_own_options(cli: Cli) -> None:
    toys.save_model(Path("deeper.toy"), seed=9, widths=(10, 5, 8))
    toys.save_model(Path("five.toy"), seed=9, classes=5)
    own = """
[[suspects]]
path = "five.toy"
classes = [4, 1, 2, 3]
input = { scale = 2, mean = [0.5] }

[[suspects]]
path = "deeper.toy"
infer_input = false
input = "0..255,invert=true"

[suspects.layers]
dense2 = "dense3"
"""
    write(WHOLE + own, ('path = "controls"', 'path = "controls/*"\ninput.std = 1.02'))
    plan = read_plan(Path("audit.toml"), None, Session(load_registry()))
    assert [suspect.query.infer for suspect in plan.suspects] == [True, True, True, False]
    status, _, err = cli("audit", "audit.toml")
    assert (status, err) == (1, "")
    report = json.loads(Path("out/report.json").read_text())
    copy, _, five, deeper = report["suspects"]
    assert (copy["classes"], copy["preprocessing"]) == (None, None)
    assert five["classes"] == [4, 1, 2, 3]
    assert five["preprocessing"] == {"scale": 2, "mean": [0.5], "std": [1]}
    assert (deeper["layer_map"], deeper["classes"]) == ({"dense2": "dense3"}, None)
    assert deeper["preprocessing"] == {"scale": 255, "mean": [0], "std": [1], "invert": True}
    for control in report["calibration"]["controls"]:
        assert control["preprocessing"] == {"scale": 1, "mean": [0], "std": [1.02]}


def test_the_victim_has_a_preprocessing(cli: Cli) -> None:
    # Another scale leaves a network without first biases the same answers on few inputs: what counts is what is kept.
    for said in ('input = "-1..1"', "input = { scale = 2, mean = [1] }"):
        write(WHOLE, ('path = "victim.toy"', f'path = "victim.toy"\n{said}'))
        plan = read_plan(Path("audit.toml"), None, Session(load_registry()))
        assert plan.victim.query.preprocessing == Preprocessing(2, (1,))
    write(WHOLE, ('path = "victim.toy"', 'path = "victim.toy"\ninput = "scale=1.05"'))
    status, _, err = cli("audit", "audit.toml")
    assert (status in (0, 1), err) == (True, "")
    report = json.loads(Path("out/report.json").read_text())
    asked = [report["victim"], *report["calibration"]["controls"], *report["suspects"]]
    assert {json.dumps(model["preprocessing"]) for model in asked} == {'{"scale": 1.05, "mean": [0.0], "std": [1.0]}'}
    assert cli("verify", "out")[0] == 0
    arguments = ("victim.toy", "--inputs", "in.npz", "-n", "20", "-g", "shove", "-o", "s.safetensors")
    cli("suite", *arguments, "--victim-input", "scale=1.1")
    assert load_suite(Path("s.safetensors")).victim.preprocessing == Preprocessing(1.1)
    assert "scale=1.1" in cli("show", "s.safetensors")[1]
    cli.refuses(2, "wrong-value", "suite", *arguments, "--victim-input", "vgg", facts=("vgg", "caffe"))


def test_controls_far_from_the_victim(cli: Cli) -> None:
    toys.save_model(Path("controls/far.toy"), seed=5, knows=False)
    for far, count in ((False, 4), (True, 5)):
        write(WHOLE, ('output = "out"', f'output = "out-{count}"\n{"far = true" if far else ""}'))
        assert cli("audit", "audit.toml")[0] == 1
        found = json.loads(Path(f"out-{count}/report.json").read_text())["calibration"]
        assert (len(found["controls"]), len(found["notes"])) == (count, 0 if far else 1)


def test_strata_of_controls(cli: Cli) -> None:
    own = """
[[controls]]
path = "more"
stratum = "same-data"
"""
    Path("more").mkdir()
    for seed in (5, 6):
        toys.save_model(Path(f"more/c{seed}.toy"), seed=seed)
    write(WHOLE + own)
    status, out, err = cli("audit", "audit.toml")
    assert (status, err) == (1, "")
    found = json.loads(Path("out/report.json").read_text())["calibration"]
    assert [control["stratum"] for control in found["controls"]] == [None] * 4 + ["same-data"] * 2
    [limit] = found["limits"]
    assert "(stratum common-ancestor)" in limit
    # Said of an accusation, with what the rule found.
    assert limit in out.splitlines()
    assert "copy.toy: black-box: 2 of 2 metrics are near" in out
    assert "honest.toy: black-box" not in out
    assert cli("show", "out/calibration.safetensors")[1].count("same-data") == 2
    write(WHOLE.replace('path = "copy.toy"', 'path = "honest.toy"'))
    assert "(stratum common-ancestor)" not in cli("audit", "audit.toml")[1]
    write(WHOLE + own, ('stratum = "same-data"', 'stratum = "near"'))
    _, _, err = cli("audit", "audit.toml")
    assert "controls[1].stratum: expected " in err
    assert "other-architecture" in err


def test_what_does_not_fit_the_suite_is_said_before_a_model_answers_it(cli: Cli) -> None:
    kept = Path("out/suite.safetensors")  # which took its time
    write(WHOLE, ('"controls"', '"controls"\nclasses = [1, 0]'))
    cli.refuses(2, "wrong-value", "audit", "audit.toml", leaves=kept, facts=("c1.toy: ", "4 classes", "found 2"))
    write(WHOLE, ('"honest.toy"', '"honest.toy"\nlayers = { dense9 = "dense1" }'))
    status, out, _ = cli("audit", "audit.toml")  # one of several suspects fails alone
    assert status in (1, 4)
    assert any("honest.toy: failed: " in line and "dense9" in line for line in out.splitlines()), out


def test_what_an_earlier_audit_left_is_no_part_of_one_that_fails(cli: Cli) -> None:
    write(WHOLE)
    cli("audit", "audit.toml")
    Path("controls/c9.toy").write_text("{")
    status, _, err = cli("audit", "audit.toml")
    assert (status, err.startswith("deepjudge: controls/c9.toy: ")) == (4, True)
    assert sorted(path.name for path in Path("out").iterdir()) == ["observations", "queries.jsonl", "suite.safetensors"]


def test_options_of_generators_and_the_rule(cli: Cli) -> None:
    changes = (
        ("[generators.shove]", "[generators.shove]\neps = 0.75\nupward = false"),
        ('name = "nearest"', 'name = "nearest"\ngroups = "joint"\n[rule.options]\nshare = 0.25\nalpha.outputs = 0.5'),
        ("seeds = 20", 'seeds = 15\norder = "balanced"\nlayers = ["dense1", "dense2"]\nseed = 7'),
        (
            'path = "in.npz"',
            'path = "in.npz"\nx = "x"\ny = "y"\nscale = 2\nbounds = [-1, 2]\ntraining = "in.npz:x"',
        ),
    )
    write(WHOLE, *changes)
    with np.load("in.npz") as rows:
        x, y = rows["x"], rows["y"]
    np.savez("in.npz", x=2 * x, y=y)
    cli("audit", "audit.toml")
    report = json.loads(Path("out/report.json").read_text())
    assert [(g["name"], g["options"]) for g in report["suite"]["generators"]] == [
        ("shove", {"eps": 0.75, "upward": False}),
        ("poke", {"count": 2}),
    ]
    assert (report["rule_options"], report["groups"]) == ({"share": 0.25, "alpha": {"outputs": 0.5}}, "joint")
    suite = report["suite"]
    assert (suite["cases"]["clean"], suite["seed"], suite["bounds"], suite["notes"]) == (15, 7, [-1, 2], [])
    assert [layer["name"] for layer in suite["layers"]] == ["dense1", "dense2"]


def test_layouts_of_inputs_and_victim(cli: Cli) -> None:
    for name, more in {"victim": {}, "copy": {"noise": 0.02}}.items():
        toys.save_model(Path(f"{name}.toy"), seed=4, shape=[3, 3, 3], **more)
    x, y = toys.make_inputs(toys.make_model(4, shape=(3, 3, 3)))
    np.savez("in.npz", x=np.moveaxis(x, 1, -1), y=y)
    own = (
        ("[generators.poke]", ""),
        ('[[controls]]\npath = "controls"', ""),
        ('[[suspects]]\npath = "honest.toy"', ""),
        ("[generators.shove]", "[generators.shove]\neps = 1"),
        ('metrics = ["answers", "surety", "outputs"]', 'metrics = ["answers"]'),
    )
    victim, given, suspect = (
        (f'path = "{path}"', f'path = "{path}"\n{key} = "channels_{place}"')
        for path, key, place in [
            ("victim.toy", "input_layout", "first"),
            ("in.npz", "layout", "last"),
            ("copy.toy", "input_layout", "first"),
        ]
    )
    write(WHOLE, *own, victim, given, suspect)
    status, out, _ = cli("audit", "audit.toml")
    assert status == 3
    assert "accuracy    90.0%" in out
    [found] = json.loads(Path("out/report.json").read_text())["suspects"]
    assert found["accuracy_on_seeds"] > 0.9
    write(WHOLE, *own, given, suspect)
    assert "accuracy    90.0%" not in cli("audit", "audit.toml")[1]
    write(WHOLE, *own, victim, given)  # as its answers show
    assert cli("audit", "audit.toml")[0] == 3
    [found] = json.loads(Path("out/report.json").read_text())["suspects"]
    assert found["accuracy_on_seeds"] > 0.9
    assert any("channels first" in note for note in found["notes"])


# What is wrong with it.

# The change, the line, the key, and what else a person needs.
MISTAKES: dict[str, tuple[tuple[str, str], int, str, tuple[str, ...]]] = {
    "backslash": (('"victim.toy"', r'"models\victim.toy"'), 5, "", ("TOML", "/")),
    "no quotes": (('"victim.toy"', "victim.toy"), 5, "", ("TOML", "quotes")),
    "colon": (("seeds = 20", "seeds: 20"), 11, "", ("TOML", "=")),
    "capital": (("seeds = 20", "force = True"), 11, "", ("TOML", "true")),
    "JSON": (('output = "out"', '{"output": "out"'), 1, "", ("TOML", "path = ")),
    "table twice": (("[rule]", "[inputs]\nx = 'x'\n[rule]"), 16, "", ("TOML", "twice")),
    "no TOML": (("[suite]", "[suite"), 10, "", ("TOML",)),
    "cut": (('path = "honest.toy"', "path = [1,"), 26, "", ("TOML",)),
    "twice": (("seeds = 20", "seeds = 20\nseeds = 30"), 12, "", ("TOML",)),
    "unknown table": (("[suite]", "[suit]"), 10, "suit", ("output", "match", "suite")),
    "unknown key": (("seeds = 20", "\n# many\nsead = 20"), 13, "suite.sead", ("seed",)),
    "of a suspect": (('"honest.toy"', '"honest.toy"\nclases = [1]'), 27, "suspects[1].clases", ("classes",)),
    "a word for a table": (
        ('[victim]\npath = "victim.toy"', 'victim = "victim.toy"'),
        4,
        "victim",
        ("[victim]", 'path = "victim.toy"'),
    ),
    "one table": (("[[controls]]", "[controls]"), 19, "controls", ("[[controls]]", "two brackets")),
    "home": (('"victim.toy"', '"~/victim.toy"'), 5, "victim.path", ("~/victim.toy", "whole path")),
    "tab": (('"victim.toy"', r'"models\tvictim.toy"'), 5, "victim.path", (r"\t", "/")),
    "near": (('"victim.toy"', '"victm.toy"'), 5, "victim.path", ("'victim.toy'",)),
    "no victim": (('[victim]\npath = "victim.toy"', ""), 1, "victim", ("[victim]",)),
    "no path": (('path = "victim.toy"', ""), 4, "victim.path", ()),
    "no suspects": (
        ('[[suspects]]\npath = "copy.toy"\n\n[[suspects]]\npath = "honest.toy"', ""),
        1,
        "suspects",
        ("[[suspects]]",),
    ),
    "text": (('"copy.toy"', "3"), 23, "suspects[0].path", ("3",)),
    "empty text": (('"out"', '""'), 1, "output", ()),
    "number": (("seeds = 20", 'seeds = "20"'), 11, "suite.seeds", ("1", "20")),
    "match": (('"out"', '"out"\nmatch = true'), 2, "match", ("none", "neurons", "true")),
    "truth": (("seeds = 20", "seeds = true"), 11, "suite.seeds", ("1", "true")),
    "too few": (("seeds = 20", "seeds = 0"), 11, "suite.seeds", ("1", "0")),
    "choice": (("seeds = 20", 'order = "up"'), 11, "suite.order", ("high", "low", "balanced", "up")),
    "layers": (("seeds = 20", 'layers = "dense1"'), 11, "suite.layers", ("auto",)),
    "scale": (('"in.npz"', '"in.npz"\nscale = 0'), 9, "inputs.scale", ("0",)),
    "infinite": (('"in.npz"', '"in.npz"\nscale = inf'), 9, "inputs.scale", ("Infinity",)),
    "endless": (('"in.npz"', f""""in.npz"\nscale = 1{"0" * 400}"""), 9, "inputs.scale", ("1000",)),
    "bounds": (('"in.npz"', '"in.npz"\nbounds = [\n1,\n0\n]'), 9, "inputs.bounds", ("[1, 0]",)),
    "training": (('"in.npz"', '"in.npz"\ntraining = "no.npz:x"'), 9, "inputs.training", ("no.npz",)),
    "layout": (('"in.npz"', '"in.npz"\nlayout = "NCHW"'), 9, "inputs.layout", ("channels_first", "channels_last")),
    "flag": (('"copy.toy"', '"copy.toy"\ninfer_input = 1'), 24, "suspects[0].infer_input", ("true", "1")),
    "classes": (('"honest.toy"', '"honest.toy"\nclasses = "a"'), 27, "suspects[1].classes", ("2", "0", "1", "a")),
    "same classes": (('"honest.toy"', '"honest.toy"\nclasses = [0, 0]'), 27, "suspects[1].classes", ("[0, 0]",)),
    "layer map": (('"copy.toy"', '"copy.toy"\nlayers = ["a"]'), 24, "suspects[0].layers", ('["a"]',)),
    "arch": (('"copy.toy"', '"copy.toy"\narch = "nets.py"'), 24, "suspects[0].arch", ("module:function", "nets.py")),
    "input": (('"copy.toy"', '"copy.toy"\ninput = 255'), 24, "suspects[0].input", ("255",)),
    "preset": (('"copy.toy"', '"copy.toy"\ninput = "vgg"'), 24, "suspects[0].input", ("caffe", "vgg")),
    "mean": (('"copy.toy"', '"copy.toy"\ninput.mean = []'), 24, "suspects[0].input.mean", ("[]",)),
    "deviation": (('"copy.toy"', '"copy.toy"\ninput.std = 0'), 24, "suspects[0].input", ("std=0",)),
    "no such victim": (('"victim.toy"', '"none.toy"'), 5, "victim.path", ("none.toy",)),
    "no such folder": (('"controls"', '"control"'), 20, "controls[0].path", ("control: ",)),
    "no such glob": (('"controls"', '"x*.toy"'), 20, "controls[0].path", ("*.toy",)),
    "null character": (('"controls"', '"\\u0000*"'), 20, "controls[0].path", ()),
    "metric": (('"surety"', '"sure"'), 2, "metrics", ("sure",)),
    "metrics": (('["answers", "surety", "outputs"]', '"surety"'), 2, "metrics", ("surety",)),
    "generator": (("generators.poke", "generators.poker"), 14, "generators.poker", ("poker",)),
    "no table": (("[generators.shove]", "[generators]\nshove = 1"), 14, "generators.shove", ("1",)),
    "option": (("[generators.poke]", "[generators.poke]\ncout = 1"), 15, "generators.poke.cout", ("cout", "count")),
    "value": (("[generators.poke]", '[generators.poke]\ncount = "x"'), 15, "generators.poke.count", ("x",)),
    "quotes": (
        ("[generators.poke]", '[generators.poke]\ncount = "2"'),
        15,
        "generators.poke.count",
        ('"2"', "write 2"),
    ),
    "quotes within": (
        ('"nearest"', '"nearest"\noptions.alpha = { surety = "1" }'),
        18,
        "rule.options.alpha",
        ('"1"', "write 1.0"),
    ),
    "of the file": (
        ('"honest.toy"', '"honest.toy"\nstrict = true'),
        27,
        "suspects[1].strict",
        ("first table", "strict ="),
    ),
    "model twice": (('"honest.toy"', '"./copy.toy"'), 26, "suspects[1].path", ("./copy.toy", "suspects[0]")),
    "an array": (("[victim]", "[[victim]]"), 4, "victim", ("[victim]", "one bracket")),
    "ages": (("[suite]", "[sandbox]\ntimeout = 1e300\n[suite]"), 11, "sandbox.timeout", ("1000000", "1e+300")),
    "only": (('"out"', '"out"\nonly = ["cpoy"]'), 2, "only", ("inconclusive", "cpoy")),
    "rule": (('"nearest"', '"furthest"'), 17, "rule.name", ("furthest",)),
    "groups": (('"nearest"', '"nearest"\ngroups = "none"'), 18, "rule.groups", ("separate", "joint", "none")),
    "rule option": (('"nearest"', '"nearest"\noptions.x = 1'), 18, "rule.options.x", ("nearest", "share", "alpha")),
    "old key": (("[suite]", '[bundle]\ntsa = "x"\n[suite]'), 11, "bundle.tsa", ("tsa_response",)),
    "of no metric": (
        ('"nearest"', '"nearest"\noptions.alpha = { robd = 1 }'),
        18,
        "rule.options.alpha",
        ("answers", "surety", "outputs", "robd"),
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_has_its_line(cli: Cli, case: str) -> None:
    change, line, key, facts = MISTAKES[case]
    write(WHOLE, change)
    # No model is opened: the victim is not even one.
    Path("victim.toy").write_text("")
    text = cli.refuses(2, "audit-file", "audit", "audit.toml", facts=facts)
    assert text.startswith(f"deepjudge: audit.toml:{line}: {key}{': ' * bool(key)}")


def test_a_key_of_the_file_below_a_model(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(load_registry())
    for output, warned in (("", True), ('output = "out"', False)):
        write(WHOLE, ('output = "out"', output), ('"honest.toy"', '"honest.toy"\noutput = "results"'))
        read_plan(Path("audit.toml"), None, session)
        assert ("audit.toml:27: suspects[1].output" in capsys.readouterr().err) is warned


def test_words_in_the_place_of_tables(cli: Cli) -> None:
    Path("audit.toml").write_text('suspects = ["copy.toy"]\n[victim]\npath = "victim.toy"\n[inputs]\npath = "in.npz"\n')
    cli.refuses(
        2,
        "audit-file",
        "audit",
        "audit.toml",
        facts=("audit.toml:1", "suspects[0]", "[[suspects]]", 'path = "copy.toy"'),
    )


def test_an_option_that_has_to_be_given(cli: Cli) -> None:
    def needy(task: Task, *, eps: float, count: int = 1) -> Cases:
        raise AssertionError

    def deepjudge_generators() -> list[Generator]:
        return [Generator("needy", makes="corners", needs=Access.LABELS, generate=needy)]

    own = load_registry({"mine": SimpleNamespace(deepjudge_generators=hookimpl(deepjudge_generators))})
    for options, (place, fact) in {
        "count = 2": ("14: generators.needy: ", "'eps'"),
        "eps = 1\ncount = 0.5": ("16: generators.needy.count: ", "0.5"),
    }.items():
        write(WHOLE, ("[generators.poke]", f"[generators.needy]\n{options}"))
        with pytest.raises(AuditFileError) as caught:
            read_plan(Path("audit.toml"), None, Session(own))
        [line] = caught.value.lines
        assert line.startswith(f"audit.toml:{place}")
        assert fact in line
    write(WHOLE, ("[generators.poke]", "[generators.needy]\neps = 1"))
    assert read_plan(Path("audit.toml"), None, Session(own)).suite.options["needy"] == {"eps": 1}


def test_all_mistakes_are_reported_in_their_order(cli: Cli) -> None:
    write(WHOLE, ('"honest.toy"', "3"), ("seeds = 20", "seeds = 0"), ("victim.toy", "none.toy"), ('"nearest"', '"x"'))
    status, out, err = cli("audit", "audit.toml")
    assert (status, out) == (2, "")
    assert re.findall(r"^deepjudge: audit\.toml:(\d+): ([\w.[\]]+): ", err, re.MULTILINE) == [
        ("5", "victim.path"),
        ("11", "suite.seeds"),
        ("17", "rule.name"),
        ("26", "suspects[1].path"),
    ]


def test_a_file_that_is_none(cli: Cli) -> None:
    cli.refuses(2, "cannot-read", "audit", "none.toml", facts=("none.toml",))
    Path("folder.toml").mkdir()
    cli.refuses(4, "cannot-read", "audit", "folder.toml", facts=("folder.toml",))
    Path("bytes.toml").write_bytes(b"\xff")
    cli.refuses(2, "audit-file", "audit", "bytes.toml", facts=("bytes.toml",))
    Path("deep.toml").write_text(f"a = {'[' * 10_000}")
    cli.refuses(2, "audit-file", "audit", "deep.toml", facts=("deep.toml",))
    write(WHOLE)
    cli.refuses(2, "would-overwrite", "audit", "audit.toml", "-o", "in.npz", facts=("in.npz",))


@pytest.mark.parametrize(
    "more",
    [("--scale", "16"), ("copy.toy",), ("--controls", "controls"), ("-o", "out", "-n", "3"), ("--inputs", "in.npz")],
)
def test_a_file_says_all(cli: Cli, more: tuple[str, ...]) -> None:
    write(WHOLE)
    for words in (("audit.toml", *more), (*more, "./audit.toml")):
        status, out, err = cli("audit", *words)
        assert (status, out) == (2, "")
        assert "audit.toml describes the whole audit: " in err
    assert not Path("out").exists()


def test_a_folder_may_be_called_like_a_file(cli: Cli) -> None:
    typed = ("audit", "victim.toy", "--inputs", "in.npz", *MADE, *HOW)
    assert cli(*typed, "-o", "out.toml", "copy.toy")[0] == 3
    assert cli(*typed, "--out=other.toml", "copy.toy")[0] == 3
    write(WHOLE)
    assert cli("audit", "-o", "third.toml", "audit.toml")[0] == 1
    assert sorted(path.name for path in Path().glob("*.toml")) == [
        "audit.toml",
        "other.toml",
        "out.toml",
        "third.toml",
    ]


# Any mistake, anywhere.


@settings(max_examples=40, deadline=None)
@given(
    filling=st.lists(st.lists(st.sampled_from(["", "# x = 1", "   ", "#"]), max_size=3), min_size=24, max_size=24),
    place=st.integers(0, 5),
)
def test_the_line_is_that_of_the_mistake(
    filling: list[list[str]], place: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = WHOLE.splitlines()
    wanted = [
        "seeds = 20",
        'name = "nearest"',
        'path = "copy.toy"',
        'path = "victim.toy"',
        'output = "out"',
        'path = "in.npz"',
    ]
    bad = lines.index(wanted[place])
    lines[bad] = lines[bad].split(" = ")[0] + " = [\n  false ]"
    mixed = [part for line, more in zip(lines, [*filling, [], []], strict=False) for part in (*more, line)]
    folder = tmp_path_factory.mktemp("any")
    (folder / "audit.toml").write_text("\n".join(mixed))
    with pytest.raises(AuditFileError) as caught:
        read_plan(folder / "audit.toml", None, Session(toys.registry()))
    expected = next(i for i, line in enumerate("\n".join(mixed).split("\n"), 1) if line.endswith("= ["))
    found = [line for line in caught.value.lines if "found [false]" in line]
    assert [line.partition(": ")[0] for line in found] == [f"{folder / 'audit.toml'}:{expected}"]


# Models of frameworks.


@pytest.fixture
def filled(cli: Cli, zoo: Zoo) -> Callable[..., str]:
    """What ``init`` writes, with the small models' names filled in."""
    for name in ("controls", "suspects"):
        shutil.rmtree(name, ignore_errors=True)
        Path(name).mkdir()

    def fill(*changes: tuple[str, str]) -> str:
        assert cli("init")[0] == 0
        text = Path("audit.toml").read_text()
        Path("audit.toml").unlink()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        return text

    return fill


def test_the_example_audits_once_it_is_filled_in(
    cli: Cli, zoo: Zoo, filled: Callable[..., str], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    victim = zoo.model("torch-pt2", 0)
    shutil.copy(zoo.source("torch-tensors", 0), "victim.safetensors")
    for seed in range(1, 6):
        shutil.copy(zoo.source("onnx-legacy", seed), f"controls/c{seed}.onnx")
    shutil.copy(zoo.source("keras-file", 0), "suspects/converted.keras")
    shutil.copy(zoo.source("torch-pt2", 9), "suspects/honest.pt2")
    # A copy that expects 0..255, and has its classes in another order.
    order = [2, 0, 1, 4, 3]
    state = dict(zoo.source("torch", 0).state_dict())
    state |= {name: state[name][[order.index(c) for c in range(CLASSES)]] for name in ("dense2.weight", "dense2.bias")}
    low, high = BOUNDS
    kernel, bias = state["conv1.weight"], state["conv1.bias"]
    state["conv1.weight"] = kernel * ((high - low) / 255)
    state["conv1.bias"] = bias + low * kernel.sum(dim=(1, 2, 3))
    Path("own").mkdir()
    safetensors.save_file({name: value.contiguous() for name, value in state.items()}, "own/weights.safetensors")
    Path("own_networks.py").write_text("from models import architecture as make\n")
    x = inputs(80)
    np.savez("digits.npz", x=x, y=victim.predict(x).argmax(axis=1))
    own = f"""
[[suspects]]
path = "own"
arch = "own_networks:make"
input = {{ scale = 255 }}
classes = {order}
"""
    Path("work").mkdir()
    for name in ("victim.safetensors", "digits.npz", "controls", "suspects", "own", "own_networks.py"):
        shutil.move(name, "work")
    text = filled(
        ('path = "victim.onnx"', 'path = "victim.safetensors"\narch = "own_networks:make"'),
        ("inputs.npz", "digits.npz"),
        ("seeds = 1000", "seeds = 40"),
        ('eps = "none"', "eps = 0.5"),
        ("m = 3.0", "m = 1.1"),
        ("iterations = 1000", "iterations = 100"),
        ("#metrics = ", "metrics = "),
        ("far = false", "far = true"),  # the controls are random networks
    )
    # Where the file is, and not where the user is.
    Path("work/audit.toml").write_text(text + own)
    status, out, err = cli("audit", "work/audit.toml")
    assert (status, err) == (1, "")
    assert out.splitlines()[-1] == f"page: {os.path.join('work', 'audit', 'report.html')}"  # noqa: PTH118
    report = json.loads(Path("work/audit/report.json").read_text())
    converted, honest, weights = report["suspects"]
    assert [s["path"] for s in report["suspects"]] == [
        "suspects/converted.keras",
        "suspects/honest.pt2",
        "own/weights.safetensors",
    ]
    assert honest["decision"] != "copy"
    for suspect in (converted, weights):
        assert suspect["decision"] == "copy"
        assert all(metric["value"] < 1e-4 for metric in suspect["metrics"].values())
    assert (weights["classes"], weights["preprocessing"]["scale"], weights["inferred"]) == (order, 255, [])


def test_weights_in_safetensors(cli: Cli, zoo: Zoo) -> None:
    shutil.copy(zoo.source("torch-tensors", 0), "weights.safetensors")
    shutil.copy(zoo.source("torch-tensors", 0), "upper.SafeTensors")
    x = inputs(60)
    np.savez("pictures.npz", x=x, y=zoo.model("torch", 0).predict(x).argmax(axis=1))
    arch = ("--arch", "models:architecture")
    how = ("--inputs", "pictures.npz", "-n", "30", "-g", "pgd", "--option", "pgd.eps=0.5")
    without = ("weights.safetensors: ", "state dict", "--arch file.py:function")
    cli.refuses(4, "unusable-model", "suite", "weights.safetensors", *how, "-o", "s", facts=without)
    assert cli("suite", "weights.safetensors", *how, *arch, "-o", "s.safetensors")[0] == 0
    # Of an audit, --arch is said of all files of weights.
    audit = ("audit", "weights.safetensors", "weights.safetensors", *how, "-o", "out")
    cli.refuses(2, "missing-value", *audit, facts=("weights.safetensors", "--arch file.py:function"))
    assert cli(*audit, *arch)[0] == 1
    observe = ("observe", "s.safetensors", "weights.safetensors", "-o", "o.safetensors")
    cli.refuses(4, "unusable-model", *observe, facts=without)
    # Found by what they hold: an observation, weights, a suite.
    assert cli("observe", "s.safetensors", "weights.safetensors", *arch, "-o", "o.safetensors")[0] == 0
    Path("many").mkdir()
    for name in ("o.safetensors", "weights.safetensors", "upper.SafeTensors", "s.safetensors"):
        shutil.copy(name, "many")
    shutil.copy("o.safetensors", "observation")
    for named, decisions in {
        ("many",): {"many/upper.SafeTensors": True, "many/weights.safetensors": True},
        ("many/*",): {"many/upper.SafeTensors": True, "many/weights.safetensors": True},
        ("many/[ow]*.safetensors",): {"many/o.safetensors": True, "many/weights.safetensors": True},
        ("observation", "many/s.safetensors"): {"observation": True, "many/s.safetensors": False},
    }.items():
        _, out, _ = cli("judge", "s.safetensors", *named, "--stored", *arch, "--json", "r.json")
        found = {s["path"]: s["decision"] != "failed" for s in json.loads(Path("r.json").read_text())["suspects"]}
        assert found == decisions
        for suspect in json.loads(Path("r.json").read_text())["suspects"]:
            assert all(not metric["value"] for metric in suspect["metrics"].values())
    assert "many/s.safetensors: failed: expected a deepjudge observation, found a deepjudge suite" in out
    _, out, _ = cli("judge", "s.safetensors", "weights.safetensors")
    [line] = (line for line in out.splitlines() if line.startswith("weights.safetensors: failed: "))
    expect_facts(line, *without)
    facts = ("o.safetensors: ", "a model", "a file of deepjudge's own")
    cli.refuses(2, "wrong-usage", "suite", "o.safetensors", *how, "-o", "t", facts=facts)
    # A file of ours that was cut is no weights.
    Path("cut.safetensors").write_bytes(Path("o.safetensors").read_bytes()[:-9])
    _, out, _ = cli("judge", "s.safetensors", "cut.safetensors", "--stored", *arch)
    assert "cut.safetensors: failed: expected a deepjudge observation, found a damaged file" in out


def test_the_output_of_a_victim(cli: Cli, zoo: Zoo) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(zoo.source("onnx-legacy", 0))
    hidden = next(node.output[0] for node in model.graph.node if node.op_type == "Tanh")
    # An auxiliary head, in front.
    model.graph.output.insert(0, onnx.helper.make_tensor_value_info(hidden, onnx.TensorProto.FLOAT, ["rows", 10]))
    onnx.save(model, "two.onnx")
    x = inputs(60)
    np.savez("pictures.npz", x=x, y=zoo.model("torch", 0).predict(x).argmax(axis=1))
    typed = ("suite", "two.onnx", "--inputs", "pictures.npz", "-n", "30", "-g", "pgd", "--option", "pgd.eps=0.5")
    for more in ((), ("--output", "p"), ("--output", "2")):
        shown = cli(*typed, *more, "-o", "s")[1]
        assert "(onnx, 5 classes)" in shown
        assert "output 2 of 2 ('p')" in shown
    assert "(onnx, 5 classes)" not in cli(*typed, "--output", "1", "-o", "s")[1]


@pytest.mark.parametrize("path", ["victim.toy", "in.npz", "copy.toy", "controls/c1.toy", "audit.toml"])
def test_a_form_of_the_report_goes_over_nothing_that_is_read(cli: Cli, path: str) -> None:
    write(WHOLE, ("[[controls]]", f'[report]\nhtml = "{path}"\n\n[[controls]]'))
    cli.refuses(2, "would-overwrite", "audit", "audit.toml", facts=(path,))
