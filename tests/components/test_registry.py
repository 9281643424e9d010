"""Discovery: what is installed, and what is said of what fails."""

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toys

from deepjudge_core import Access, Adapter, Generator, Metric, hookimpl, load_registry, open_model
from deepjudge_core.cli.main import main
from deepjudge_core.components.kinds import Rule
from deepjudge_core.errors import ModelError, PluginError, UsageError


def metric(name: Any = "gap", **changes: Any) -> Metric:
    facts = {"needs": Access.LABELS, "on": "adversarial", "distance": lambda v, s: 0.0, "alpha": 0.9}
    return Metric(name, **facts | changes)


def giving(function: Callable[[], Any], hook: str = "deepjudge_metrics") -> object:
    """A plugin whose hook is the function."""
    return SimpleNamespace(**{hook: hookimpl(function)})


def failure(plugin: object) -> str:
    [found] = toys.registry_of(bad=plugin).plugins
    assert found.components == ()
    assert found.failure is not None
    assert "\n" not in found.failure
    return found.failure


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a distribution of one module, as pip would."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def install(name: str, code: str, version: str = "1.0") -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[deepjudge]\n{module} = {module}\n")

    yield install
    for name in set(sys.modules) - before:
        del sys.modules[name]


WORKING = """
    from deepjudge_core import Access, Metric, hookimpl

    @hookimpl
    def deepjudge_metrics():
        return [Metric("NAME", needs=Access.LABELS, on="adversarial", distance=lambda v, s: 0.0, alpha=0.9)]
    """


def test_finds_what_an_installed_distribution_gives(install: Callable[..., None]) -> None:
    install("other-metrics", WORKING.replace("NAME", "other"), "3.1")
    registry = load_registry()
    assert registry.metrics["other"].name == "other"
    assert registry.metrics.provider("other") == "other-metrics 3.1"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_framework", "cannot be imported: ModuleNotFoundError: No module named 'no_such_framework'"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_a_plugin_that_cannot_be_imported(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str], code: str, said: str
) -> None:
    install("bad-one", code, "0.2")
    install("good-one", WORKING.replace("NAME", "good"))
    assert load_registry().metrics["good"]
    assert main(["plugins"]) == 4
    out, err = capsys.readouterr()
    [line] = [line for line in out.splitlines() if said in line]
    assert "'bad_one' of bad-one 0.2" in line
    assert "good-one 1.0" in out
    assert err == ""


def raises() -> Any:
    raise KeyError("x")


def leaves() -> Any:
    raise SystemExit("bye")


def half() -> Any:
    yield metric()
    raise OSError(5, "disk\n on fire")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (raises, "deepjudge_metrics failed: KeyError: 'x'"),
        (leaves, "deepjudge_metrics failed: SystemExit: bye"),
        (half, "deepjudge_metrics failed: OSError: [Errno 5] disk on fire"),
        (lambda: None, "deepjudge_metrics returned nothing; expected an iterable of Metric"),
        (lambda: (), "deepjudge_metrics returned nothing; expected an iterable of Metric"),
        (lambda: 3, "deepjudge_metrics failed: TypeError: 'int' object is not iterable"),
        (metric, "deepjudge_metrics failed: TypeError: 'Metric' object is not iterable"),
        (lambda: [metric(), "jsd"], "deepjudge_metrics returned a str; expected Metric"),
        (lambda: [Rule("r", judge=len)], "deepjudge_metrics returned a Rule; expected Metric"),
        (lambda: [metric("JSD")], "returned the name 'JSD'; expected lower-case letters, digits, '.', '_', '-'"),
        (lambda: [metric("a b")], "returned the name 'a b'"),
        (lambda: [metric("")], "returned the name ''"),
        (lambda: [metric("x\n")], "returned the name 'x\\n'"),
        (lambda: [metric(None)], "returned the name None"),
        (lambda: [metric(on="adversarail")], "gap: expected on to be one of clean, adversarial, corners, mistakes"),
        (lambda: [metric("all")], "a metric is called 'all', which stands for every one; expected another name"),
        (lambda: [metric(alpha=0)], "gap: expected 0 < alpha <= 1, found 0"),
        (lambda: [metric(alpha=float("nan"))], "gap: expected 0 < alpha <= 1, found nan"),
        (lambda: [metric(upper=0)], "gap: expected upper > 0, found 0"),
    ],
)
def test_a_hook_that_gives_nothing_of_use(function: Callable[[], Any], said: str) -> None:
    assert said in failure(giving(function))


def test_a_generator_that_makes_what_no_suite_has() -> None:
    def makes_clean() -> Any:
        return [Generator("g", makes="clean", needs=Access.LABELS, generate=len)]  # type: ignore[arg-type]

    said = failure(giving(makes_clean, "deepjudge_generators"))
    assert "g: expected makes to be one of adversarial, corners, mistakes, found 'clean'" in said


def test_a_suffix_that_would_claim_every_file() -> None:
    def one_text() -> Any:
        return [Adapter("a", suffixes=".toy", accepts=callable, open=len)]  # type: ignore[arg-type]

    assert "expected suffixes as a tuple like ('.onnx',)" in failure(giving(one_text, "deepjudge_adapters"))


def test_a_misspelt_hook_is_suggested() -> None:
    assert failure(giving(lambda: [metric()], "deepjudge_metric")) == (
        "there is no hook deepjudge_metric; did you mean deepjudge_metrics?"
    )
    assert failure(giving(lambda: [metric()], "deepjudge_zzz")) == "there is no hook deepjudge_zzz"


def test_a_hook_without_its_marker_is_not_passed_over() -> None:
    plugin = giving(lambda: [metric()])
    plugin.deepjudge_rules = lambda: [Rule("r", judge=len)]  # type: ignore[attr-defined]
    assert failure(plugin) == "deepjudge_rules is not marked with @hookimpl"


def test_a_hook_that_asks_for_arguments() -> None:
    said = failure(giving(lambda config: [metric()]))  # type: ignore[arg-type, misc]
    assert "deepjudge_metrics" in said
    assert "config" in said


def test_no_hooks_at_all() -> None:
    assert failure(SimpleNamespace(x=1)) == (
        "implements none of the hooks deepjudge_adapters, deepjudge_generators, deepjudge_metrics, deepjudge_rules, "
        "deepjudge_attacks"
    )


def test_a_plugin_may_be_an_object_and_a_hook_may_have_another_name() -> None:
    class Plugin:
        @hookimpl(specname="deepjudge_metrics")
        def deepjudge_mine(self) -> Any:
            yield metric("mine")

    assert list(toys.registry_of(p=Plugin()).metrics) == ["mine"]


def test_a_broken_plugin_does_not_keep_others_from_working() -> None:
    registry = toys.registry_of(bad=giving(raises), good=giving(lambda: [metric("fine")]))
    assert registry.metrics.select() == [registry.metrics["fine"]]
    assert [line.split(":")[0] for line in registry.failures()] == ["plugin 'bad' of this program"]


def test_a_name_claimed_twice_names_both_distributions(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    install("first-dist", WORKING.replace("NAME", "same"), "1.1")
    install("second-dist", WORKING.replace("NAME", "same"), "2.2")
    install("third-dist", WORKING.replace("NAME", "other"))
    registry = load_registry()
    expected = (
        "the metric name 'same' is claimed by first-dist 1.1 (plugin 'first_dist') and second-dist 2.2 "
        "(plugin 'second_dist'): uninstall one of them"
    )
    assert registry.failures() == [expected]
    with pytest.raises(PluginError, match=r"first-dist 1\.1.* and second-dist 2\.2"):
        registry.metrics["same"]
    with pytest.raises(PluginError, match="claimed"):
        registry.metrics.provider("same")
    with pytest.raises(PluginError, match="claimed"):
        registry.metrics.select(["other", "same"])
    assert [m.name for m in registry.metrics.select(["other", "other"])] == ["other"]
    names = [m.name for m in registry.metrics.select()]
    assert "other" in names
    assert "same" not in names
    assert main(["plugins"]) == 4
    assert expected in capsys.readouterr().out
    assert main(["plugins", "--json"]) == 4
    assert expected in capsys.readouterr().out


def test_other_commands_go_on_with_a_warning(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install("bad-one", "import no_such_framework")
    main(["suite", str(tmp_path / "none.onnx"), "--inputs", str(tmp_path / "none.npz"), "-o", str(tmp_path / "s")])
    out, err = capsys.readouterr()
    assert out == ""
    warning, error = err.splitlines()
    assert warning.startswith("deepjudge: warning: plugin 'bad_one' of bad-one 1.0: cannot be imported:")
    assert error == f"deepjudge: {tmp_path / 'none.npz'}: no such file"


def test_an_unknown_name_is_suggested() -> None:
    with pytest.raises(UsageError) as caught:
        toys.registry().metrics["surty"]
    assert str(caught.value) == (
        "no metric is called 'surty'; installed: answers, outputs, surety; did you mean 'surety'?"
    )
    with pytest.raises(UsageError, match=r"no rule is called 'x'; installed: none$"):
        toys.registry_of().rules["x"]


def test_a_file_of_two_adapters_and_an_adapter_of_two_plugins(tmp_path: Path) -> None:
    def adapter(name: str, suffix: str) -> object:
        return giving(
            lambda: [Adapter(name, (suffix,), lambda source: False, lambda source, **options: toys.make_model())],
            "deepjudge_adapters",
        )

    file = tmp_path / "m.toy"
    file.write_text("{}")
    registry = toys.registry_of(toys=toys, other=adapter("other", ".toy"))
    with pytest.raises(UsageError, match="claimed by the adapters toy and other: uninstall one"):
        open_model(file, registry=registry)
    registry = toys.registry_of(toys=toys, other=adapter("toy", ".zip"))
    with pytest.raises(PluginError, match="the adapter name 'toy' is claimed by"):
        open_model(file, registry=registry)
    (tmp_path / "m.free").write_text("{}")
    registry = toys.registry_of(toys=toys, other=adapter("toy", ".zip"), free=adapter("free", ".free"))
    assert open_model(tmp_path / "m.free", registry=registry).framework == "numpy"


def test_open_model(tmp_path: Path) -> None:
    registry = toys.registry()
    model = toys.make_model()
    assert open_model(model, registry=registry) is model
    assert open_model(toys.Toy(model), registry=registry) is model
    file = toys.save_model(tmp_path / "A.TOY", seed=3)
    assert open_model(str(file), registry=registry).digest == toys.make_model(3).digest
    for source, error, said in [
        (tmp_path / "none.toy", ModelError, "none.toy: no such file"),
        (tmp_path, UsageError, "no installed adapter reads it; expected a live model or a file ending in .toy"),
        (object(), UsageError, "builtins.object: no installed adapter reads it"),
        (b"a.toy", UsageError, "builtins.bytes: no installed adapter reads it"),
    ]:
        with pytest.raises(error, match=said):
            open_model(source, registry=registry)
    file.write_text("")
    with pytest.raises(ModelError, match=r"A\.TOY: expected a model, found an empty file"):
        open_model(file, registry=registry)
    file.write_text("[")
    with pytest.raises(ModelError, match="expected a toy model, found no JSON"):
        open_model(file, registry=registry)
    file.write_text('{"no_such_argument": 1}')
    with pytest.raises(ModelError, match=r"A\.TOY: cannot be opened by the toy adapter: .*no_such_argument"):
        open_model(file, registry=registry)


# --- metrics that are taken by name only


def some(*metrics: Metric) -> Any:
    return toys.registry_of(one=giving(lambda: list(metrics))).metrics


def names(found: list[Metric]) -> list[str]:
    return [found.name for found in found]


def test_a_metric_that_is_no_default_is_taken_by_name_and_with_all() -> None:
    metrics = some(metric("a"), metric("b", default=False), metric("c"))
    assert names(metrics.select()) == ["a", "c"]
    assert names(metrics.select(["b"])) == ["b"]
    assert names(metrics.select(["all"])) == ["a", "b", "c"]
    assert names(metrics.select(["c", "all", "c"])) == ["c", "a", "b"]
    assert names(metrics.select(iter(["all"]))) == ["a", "b", "c"]
    assert names(metrics.select([])) == []
    with pytest.raises(UsageError, match="no metric is called 'd'"):
        metrics.select(["all", "d"])


def test_all_passes_over_a_name_that_is_claimed_twice_unless_it_is_named() -> None:
    one, two = giving(lambda: [metric("a"), metric("b")]), giving(lambda: [metric("b", default=False)])
    metrics = toys.registry_of(one=one, two=two).metrics
    assert names(metrics.select()) == names(metrics.select(["all"])) == ["a"]
    with pytest.raises(PluginError, match="claimed by"):
        metrics.select(["all", "b"])


def test_all_stands_for_metrics_alone() -> None:
    with pytest.raises(UsageError, match="no generator is called 'all'"):
        toys.registry().generators.select(["all"])


def test_the_list_says_which_are_no_default(install: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    plain = WORKING.replace("NAME", "plain")
    install("two-metrics", plain.replace(")]", '), Metric("rare", Access.LABELS, "clean", max, 0.9, default=False)]'))
    assert main(["plugins"]) == 0
    assert "metric plain; optional metric rare" in capsys.readouterr().out
    assert main(["plugins", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["plugins"]
    [components] = [plugin["components"] for plugin in listed if plugin["name"] == "two_metrics"]
    assert components == [
        {"kind": "metric", "name": "plain", "default": True},
        {"kind": "metric", "name": "rare", "default": False},
    ]
