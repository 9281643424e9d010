"""The examples: a third party's plugin, installed by pip and used from the command line, and the demo."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import toys
from places import ROOT
from tutorials import commands, differences

import deepjudge_core as dj
from deepjudge_core.report.audit_json import schema

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "examples"
SHAPE = (6,)


def deepjudge(*words: object, path: Path | None = None, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command, with one more folder of installed distributions where one is given."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path:
        env["PYTHONPATH"] = str(path)
    command = [Path(sys.executable).with_name("deepjudge"), *map(str, words)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)


def installed(name: str, work: Path) -> Path:
    """A folder that a plugin is installed into; its source is next to it."""
    source = shutil.copytree(EXAMPLES / name, work / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", work / "installed", source], check=True, stdin=subprocess.DEVNULL)
    return work / "installed"


@pytest.fixture(scope="module")
def top1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that ``deepjudge-top1`` is installed into."""
    return installed("deepjudge-top1", tmp_path_factory.mktemp("top1"))


@pytest.fixture(scope="module")
def midway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that ``deepjudge-midway`` is installed into."""
    return installed("deepjudge-midway", tmp_path_factory.mktemp("midway"))


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite, a calibration and two observations, of a copy and of an independent model."""
    folder = tmp_path_factory.mktemp("audit")
    victim = toys.make_model(shape=SHAPE, widths=(16, 16))
    seeds = dj.select_seeds(victim, *toys.make_inputs(victim, 100), n=50)
    suite = dj.build_suite(victim, seeds, ["fgsm"], options={"fgsm": {"eps": 0.5}})
    controls = [dj.observe(toys.make_model(seed, shape=SHAPE, widths=(16, 16)), suite) for seed in range(1, 5)]
    dj.save_suite(folder / "suite.safetensors", suite)
    dj.save_calibration(folder / "calibration.safetensors", dj.calibrate(suite, controls))
    other = toys.make_model(9, shape=SHAPE, widths=(16, 16))
    for name, model in {"copy": victim.perturbed(0.01, seed=1), "other": other}.items():
        dj.save_observation(folder / f"{name}.safetensors", dj.observe(model, suite))
    return folder


JUDGE = ("judge", "suite.safetensors", "copy.safetensors", "other.safetensors", "--stored")
TOP1 = ("--calibration", "calibration.safetensors", "--metric", "top1", "--rule", "unanimous")


def test_the_plugins_are_found(top1: Path, midway: Path, tmp_path: Path) -> None:
    found = deepjudge("plugins", path=top1, cwd=tmp_path)
    assert "deepjudge-top1 0.1.0" in found.stdout
    assert "optional metric top1; rule unanimous" in found.stdout
    found = deepjudge("plugins", path=midway, cwd=tmp_path)
    assert "deepjudge-midway 0.1.0" in found.stdout
    assert "scheme midway" in found.stdout


@pytest.mark.parametrize("plugin", ["top1", "midway"])
def test_a_plugin_passes_its_own_tests(plugin: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(plugin)
    env = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "--import-mode=importlib", "-p", "no:cacheprovider"]
    found = subprocess.run([*command, folder.parent / "source"], env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert " passed" in found.stdout


def test_the_plugin_judges(top1: Path, audit: Path) -> None:
    found = deepjudge(*JUDGE, *TOP1, "--json", "-", path=top1, cwd=audit)
    assert found.returncode == 1, found.stderr
    report = json.loads(found.stdout)
    jsonschema.validate(report, schema())
    assert report["rule"] == "unanimous"
    copy, other = report["suspects"]
    assert [copy["decision"], other["decision"]] == ["copy", "independent"]
    assert set(copy["metrics"]) == {"top1"}
    values = [suspect["metrics"]["top1"] for suspect in (copy, other)]
    assert values[0]["value"] <= values[0]["threshold"] < values[1]["value"]
    assert values[0]["threshold"] == pytest.approx(0.9 * values[0]["lower_bound"])


def test_the_rule_takes_its_option(top1: Path, audit: Path) -> None:
    found = deepjudge(*JUDGE, *TOP1, "--rule-option", "alpha=1.0", "--json", "-", path=top1, cwd=audit)
    metric = json.loads(found.stdout)["suspects"][0]["metrics"]["top1"]
    assert metric["threshold"] == metric["lower_bound"]
    wrong = deepjudge(*JUDGE, *TOP1, "--rule-option", "alfa=1.0", path=top1, cwd=audit)
    assert wrong.returncode == 2
    assert "unanimous has no option 'alfa'" in wrong.stderr
    assert "did you mean 'alpha'?" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--metric", "top1"), "no metric is called 'top1'; installed: "),
        (("--rule", "unanimous"), "no rule is called 'unanimous'; installed: combine, conformal"),
    ],
)
def test_without_the_plugin_its_names_are_unknown(audit: Path, words: tuple[str, ...], line: str) -> None:
    found = deepjudge(*JUDGE, *words, cwd=audit)
    assert found.returncode == 2
    assert line in found.stderr
    assert "Traceback" not in found.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the demo was run in, and what it printed."""
    for module in ("keras", "onnx", "onnxruntime", "onnxscript", "sklearn", "tensorflow", "torch"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the demo needs {module}, which is not installed: pip install 'deepjudge[all,dev]'")
    folder = tmp_path_factory.mktemp("demo")
    found = python(EXAMPLES / "demo.py", cwd=folder)
    assert found.returncode == 0, found.stdout + found.stderr
    return folder, found.stdout + found.stderr


def python(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)


def test_the_demo_tells_copies_from_independent_models(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    report = json.loads((folder / "demo" / "audit" / "report.json").read_text())
    jsonschema.validate(report, schema())
    found = {Path(s["path"]).name: (s["framework"], s["decision"], s["points_to"]) for s in report["suspects"]}
    assert found == {
        "converted.keras": ("keras", "copy", "weights"),
        "fine-tuned.onnx": ("onnx", "copy", "weights"),
        "independent-1.onnx": ("onnx", "independent", None),
        "independent-2.keras": ("keras", "independent", None),
        "pruned.pt2": ("torch", "copy", "weights"),
    }
    assert len(report["calibration"]["controls"]) == 8


def test_the_demo_shows_its_commands_and_nothing_of_its_frameworks(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    shown = [line.split()[2] for line in printed.splitlines() if line.startswith("$ deepjudge ")]
    assert shown == ["compare", "suite", "calibrate", "judge", "verify", "judge"]
    assert "\nOpen demo/report.html " in printed
    assert (folder / "demo" / "report.html").exists()
    assert not re.search("tensorflow|cuda|warning|torchvision", printed, re.IGNORECASE)


def test_the_readme_shows_what_the_demo_prints(demo: tuple[Path, str]) -> None:
    _, printed = demo
    readme = (EXAMPLES.parent / "README.md").read_text("utf-8")
    first, others, *_ = re.findall(r"^```console\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    part = printed[printed.index("$ deepjudge compare") : printed.index("The first judge ended")]
    for mine, found in zip([*commands(first), *commands(others)], commands(part), strict=True):
        assert mine.typed == found.typed
        assert not differences(mine.output, found.output, numbers=True)


def test_the_readme_is_narrow() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text("utf-8")
    first, others, *_ = re.findall(r"^```console\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert max(len(line) for line in (first + others).splitlines() if not line.startswith("$ ")) <= 100


def test_the_python_in_the_readme_runs(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    readme = (EXAMPLES.parent / "README.md").read_text("utf-8")
    [source] = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    found = python("-c", source, cwd=folder)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("copy {")
