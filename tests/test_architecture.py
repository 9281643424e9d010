"""What a user of the core may count on: no framework is imported, and everything public is described."""

import inspect
import subprocess
import sys

import pytest
from places import ROOT

import deepjudge_core
from deepjudge_core.cli.commands import COMMANDS
from deepjudge_core.components import hooks as hookspecs

FRAMEWORKS = (
    "torch",
    "transformers",
    "tensorflow",
    "keras",
    "onnx",
    "onnxruntime",
    "onnx2fx",
    "openvino",
    "jax",
    "h5py",
)
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, "deepjudge_spec")}


@pytest.mark.parametrize(
    "code",
    [
        "import deepjudge_core",
        "import deepjudge_core; assert not deepjudge_core.load_registry().failures()",
        "import deepjudge_core.testing",
        "from deepjudge_core.cli.main import main; assert main(['plugins']) == 0",
        "from deepjudge_core.cli.main import main; assert main(['--help']) == 0",
    ],
)
def test_no_framework_is_imported(code: str) -> None:
    ask = f"import sys; print('imported', sorted(set(sys.modules) & set({FRAMEWORKS})))"
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\n{ask}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines()[-1] == "imported []"


def loaded_by(*words: str) -> set[str]:
    """The modules that a command has loaded in the end."""
    code = f"from deepjudge_core.cli.main import main; main({list(words)}); import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(run.stdout.splitlines()[-1].split())


def test_a_list_of_plugins_loads_what_plugins_declare_and_no_step() -> None:
    loaded = loaded_by("plugins")
    assert "deepjudge_blackbox" in loaded
    steps = ("auditing", "bundles", "fleets", "observing", "report", "sandbox", "suites", "zoo")
    assert not {name for name in loaded if name.startswith(tuple(f"deepjudge_core.{step}" for step in steps))}
    assert not loaded & {"deepjudge_core.judging.judge", "jinja2", "scipy.optimize", "scipy.special", "scipy.stats"}


def test_help_on_all_commands_imports_none_of_them() -> None:
    loaded = loaded_by("--help")
    assert "deepjudge_core.cli.commands" in loaded
    assert not {name for name in loaded if name.startswith("deepjudge_core.cli.commands.")} | loaded & {"numpy", "rich"}


def test_the_hooks_are_the_six() -> None:
    kinds = ("adapters", "generators", "metrics", "rules", "attacks", "schemes")
    assert set(HOOKS) == {f"deepjudge_{kind}" for kind in kinds}


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_described(name: str) -> None:
    assert HOOKS[name].__doc__
    assert list(inspect.signature(HOOKS[name]).parameters) == []
    assert name in (ROOT / "docs" / "reference" / "plugins.md").read_text("utf-8")


def test_everything_public_is_described() -> None:
    for name in deepjudge_core.__all__:
        value = getattr(deepjudge_core, name)
        if name == "__version__":
            continue
        doc = value.__doc__ or ""
        assert doc.strip(), name
        assert not doc.startswith(f"{name}("), f"{name}: a dataclass without a docstring has its signature for one"
        members = inspect.getmembers(value, lambda m: inspect.isfunction(m) or isinstance(m, property))
        for member, function in members if inspect.isclass(value) else ():
            assert member.startswith("_") or function.__doc__, f"{name}.{member}"


def test_every_option_of_the_command_line_is_described() -> None:
    for command in COMMANDS:
        assert COMMANDS.summaries[command.called()] == command.summary()
        assert all(setting.declared.help for setting in command.settings()), command
