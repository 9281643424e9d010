"""Discovery: what is installed, and what is said of what fails."""

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toys
from refusals import expect_facts, refused

from deepjudge_core import Access, Adapter, Generator, Metric, hookimpl, load_registry, open_model
from deepjudge_core.cli.main import main
from deepjudge_core.components.kinds import Format, Rule
from deepjudge_core.errors import ModelError, PluginError, UsageError


def metric(name: Any = "gap", **changes: Any) -> Metric:
    facts = {"needs": Access.LABELS, "on": "adversarial", "distance": lambda v, s: 0.0, "alpha": 0.9}
    return Metric(name, **facts | changes)


def giving(function: Callable[[], Any], hook: str = "deepjudge_metrics") -> object:
    """A plugin whose hook is the function."""
    return SimpleNamespace(**{hook: hookimpl(function)})


def failure(plugin: object) -> str:
    [loaded] = toys.registry_of(bad=plugin).plugins
    assert loaded.components == ()
    assert loaded.failure is not None
    assert "\n" not in loaded.failure
    return loaded.failure


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
    ("code", "facts"),
    [
        ("import no_such_framework", ("ModuleNotFoundError", "no_such_framework")),
        ("def broken(:", ("SyntaxError",)),
        ("raise SystemExit(3)", ("SystemExit", "3")),
        ("1 / 0", ("ZeroDivisionError",)),
    ],
)
def test_a_plugin_that_cannot_be_imported(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str], code: str, facts: tuple[str, ...]
) -> None:
    install("bad-one", code, "0.2")
    install("good-one", WORKING.replace("NAME", "good"))
    assert load_registry().metrics["good"]
    assert main(["plugins"]) == 4
    out, err = capsys.readouterr()
    [line] = [line for line in out.splitlines() if all(fact in line for fact in facts)]
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
    ("function", "facts"),
    [
        (raises, ("KeyError", "'x'")),
        (leaves, ("SystemExit", "bye")),
        (half, ("OSError", "disk on fire")),
        (lambda: None, ("nothing", "Metric")),
        (lambda: (), ("nothing", "Metric")),
        (lambda: 3, ("TypeError", "int")),
        (metric, ("TypeError", "Metric")),
        (lambda: [metric(), "jsd"], ("str", "Metric")),
        (lambda: [Rule("r", judge=len)], ("Rule", "Metric")),
        (lambda: [metric("JSD")], ("'JSD'",)),
        (lambda: [metric("a b")], ("'a b'",)),
        (lambda: [metric("")], ("''",)),
        (lambda: [metric("x\n")], ("'x\\n'",)),
        (lambda: [metric(None)], ("None",)),
        (lambda: [metric(on="adversarail")], ("gap", "clean, adversarial, corners, mistakes")),
        (lambda: [metric("all")], ("'all'",)),
        (lambda: [metric(alpha=0)], ("gap", "alpha", "0")),
        (lambda: [metric(alpha=float("nan"))], ("gap", "alpha", "nan")),
        (lambda: [metric(upper=0)], ("gap", "upper", "0")),
    ],
)
def test_a_hook_that_gives_nothing_of_use(function: Callable[[], Any], facts: tuple[str, ...]) -> None:
    expect_facts(failure(giving(function)), "deepjudge_metrics", *facts)


def test_a_generator_that_makes_what_no_suite_has() -> None:
    def makes_clean() -> Any:
        return [Generator("g", makes="clean", needs=Access.LABELS, generate=len)]  # type: ignore[arg-type]

    line = failure(giving(makes_clean, "deepjudge_generators"))
    expect_facts(line, "g", "makes", "adversarial, corners, mistakes", "'clean'")


def test_a_suffix_that_would_claim_every_file() -> None:
    def one_text() -> Any:
        return [Adapter("a", suffixes=".toy", accepts=callable, open=len)]  # type: ignore[arg-type]

    expect_facts(failure(giving(one_text, "deepjudge_adapters")), "a", "suffixes", "('.onnx',)", "'.toy'")


def test_a_misspelt_hook_is_suggested() -> None:
    expect_facts(failure(giving(lambda: [metric()], "deepjudge_metric")), "deepjudge_metric;", "deepjudge_metrics?")
    line = failure(giving(lambda: [metric()], "deepjudge_zzz"))
    assert re.findall(r"deepjudge_\w+", line) == ["deepjudge_zzz"]


def test_a_hook_without_its_marker_is_not_passed_over() -> None:
    plugin = giving(lambda: [metric()])
    plugin.deepjudge_rules = lambda: [Rule("r", judge=len)]  # type: ignore[attr-defined]
    expect_facts(failure(plugin), "deepjudge_rules", "@hookimpl")


def test_a_hook_that_asks_for_arguments() -> None:
    line = failure(giving(lambda config: [metric()]))  # type: ignore[arg-type, misc]
    expect_facts(line, "deepjudge_metrics", "config")


def test_no_hooks_at_all() -> None:
    hooks = ("deepjudge_adapters", "deepjudge_generators", "deepjudge_metrics", "deepjudge_rules", "deepjudge_attacks")
    expect_facts(failure(SimpleNamespace(x=1)), *hooks)


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
    facts = ("metric", "'same'", "first-dist 1.1", "'first_dist'", "second-dist 2.2", "'second_dist'")
    [expected] = registry.failures()
    expect_facts(expected, *facts)
    with refused(PluginError, *facts):
        registry.metrics["same"]
    with refused(PluginError, *facts):
        registry.metrics.provider("same")
    with refused(PluginError, *facts):
        registry.metrics.select(["other", "same"])
    assert [m.name for m in registry.metrics.select(["other", "other"])] == ["other"]
    names = [m.name for m in registry.metrics.select()]
    assert not {"other", "same"} & {*names}
    assert main(["plugins"]) == 4
    assert expected in capsys.readouterr().out
    assert main(["plugins", "--json"]) == 4
    assert expected in capsys.readouterr().out


def test_other_commands_go_on_with_a_warning(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install("bad-one", "import no_such_framework")
    for name in ("a.onnx", "in.npz"):
        (tmp_path / name).write_bytes(b"")
    main(["suite", str(tmp_path / "a.onnx"), "--inputs", str(tmp_path / "in.npz"), "-o", str(tmp_path / "s")])
    out, err = capsys.readouterr()
    assert out == ""
    warning, error = err.splitlines()
    expect_facts(warning, "warning", "'bad_one' of bad-one 1.0", "no_such_framework")
    expect_facts(error, tmp_path / "in.npz", "(wrong-inputs)")


def test_an_unknown_name_is_suggested() -> None:
    with refused(UsageError, "metric", "'surty'", "answers, outputs, surety", "'surety'?", code="unknown-name"):
        toys.registry().metrics["surty"]
    with refused(UsageError, "rule", "'x'", "none", code="unknown-name"):
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
    with refused(UsageError, "m.toy", "toy and other", code="conflict"):
        open_model(file, registry=registry)
    registry = toys.registry_of(toys=toys, other=adapter("toy", ".zip"))
    with refused(PluginError, "adapter", "'toy'"):
        open_model(file, registry=registry)
    (tmp_path / "m.free").write_text("{}")
    registry = toys.registry_of(toys=toys, other=adapter("toy", ".zip"), free=adapter("free", ".free"))
    assert open_model(tmp_path / "m.free", registry=registry).framework == "numpy"


def test_of_an_ending_that_several_kinds_of_files_have_the_content_tells(tmp_path: Path) -> None:
    def adapter(name: str, start: bytes) -> object:
        def examine(path: Path) -> Format:
            if not path.read_bytes().startswith(start):
                raise ModelError(f"{path}: expected {start!r}")
            return Format(name)

        shared = {"shared_suffixes": (".bin",), "examine": examine, "folders": (("config.json", f"{name}.bin"),)}
        return giving(
            lambda: [
                Adapter(name, (), lambda source: False, lambda source, **options: toys.make_model(name=name), **shared)
            ],
            "deepjudge_adapters",
        )

    registry = toys.registry_of(one=adapter("one", b"1"), two=adapter("two", b"12"))
    for name, data in {"one": b"13", "both": b"12", "none": b"3"}.items():
        (tmp_path / f"{name}.bin").write_bytes(data)
    assert open_model(tmp_path / "one.bin", registry=registry).name == "one"
    with refused(UsageError, "both.bin", "one and two", code="conflict"):
        open_model(tmp_path / "both.bin", registry=registry)
    with refused(UsageError, "none.bin", ".bin"):
        open_model(tmp_path / "none.bin", registry=registry)
    # The only one that might take it says what it is.
    assert toys.registry_of(one=adapter("one", b"1")).adapters.of_file(tmp_path / "none.bin", "").name == "one"
    assert [name for name in ("one", "both", "none") if registry.adapters.reads(tmp_path / f"{name}.bin")] == [
        "one",
        "both",
    ]
    # A folder of models is one, unless it has all that one consists of.
    assert not registry.adapters.reads(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert open_model(tmp_path, registry=registry).name == "one"


def test_open_model(tmp_path: Path) -> None:
    registry = toys.registry()
    model = toys.make_model()
    assert open_model(model, registry=registry) is model
    assert open_model(toys.Toy(model), registry=registry) is model
    file = toys.save_model(tmp_path / "A.TOY", seed=3)
    assert open_model(str(file), registry=registry).digest == toys.make_model(3).digest
    with refused(ModelError, "none.toy", code="cannot-read"):
        open_model(tmp_path / "none.toy", registry=registry)
    for source, *facts in ((tmp_path, tmp_path, ".toy"), (object(), "builtins.object"), (b"a.toy", "builtins.bytes")):
        with refused(UsageError, *facts):
            open_model(source, registry=registry)
    file.write_text("")
    with refused(ModelError, "A.TOY", code="wrong-format"):
        open_model(file, registry=registry)
    file.write_text("[")
    with refused(ModelError, "A.TOY", "JSON"):
        open_model(file, registry=registry)
    file.write_text('{"no_such_argument": 1}')
    with refused(ModelError, "A.TOY", "toy", "no_such_argument"):
        open_model(file, registry=registry)


# --- metrics that are taken by name only


def some(*metrics: Metric) -> Any:
    return toys.registry_of(one=giving(lambda: list(metrics))).metrics


def names(metrics: list[Metric]) -> list[str]:
    return [metric.name for metric in metrics]


def test_a_metric_that_is_no_default_is_taken_by_name_and_with_all() -> None:
    metrics = some(metric("a"), metric("b", default=False), metric("c"))
    assert names(metrics.select()) == ["a", "c"]
    assert names(metrics.select(["b"])) == ["b"]
    assert names(metrics.select(["all"])) == ["a", "b", "c"]
    assert names(metrics.select(["c", "all", "c"])) == ["c", "a", "b"]
    assert names(metrics.select(iter(["all"]))) == ["a", "b", "c"]
    assert names(metrics.select([])) == []
    with refused(UsageError, "metric", "'d'", code="unknown-name"):
        metrics.select(["all", "d"])


def test_all_passes_over_a_name_that_is_claimed_twice_unless_it_is_named() -> None:
    one, two = giving(lambda: [metric("a"), metric("b")]), giving(lambda: [metric("b", default=False)])
    metrics = toys.registry_of(one=one, two=two).metrics
    assert names(metrics.select()) == names(metrics.select(["all"])) == ["a"]
    with refused(PluginError, "metric", "'b'"):
        metrics.select(["all", "b"])


def test_what_others_installed_is_taken_by_name_and_changes_no_default(install: Callable[..., None]) -> None:
    usual = load_registry().metrics.select()
    install("a-metric", WORKING.replace("NAME", "a"), "3.1")
    install("a-namesake", WORKING.replace("NAME", usual[0].name))  # plugins are sorted: it comes first
    mine = giving(lambda: [metric("mine")])
    metrics = load_registry({"mine": mine}).metrics
    assert names(metrics.select()) == [*names(usual), "mine"]
    assert metrics.owner(metrics.select()[0]).distribution.startswith("deepjudge ")
    assert names(metrics.select(["a"])) == ["a"]
    assert "a" in names(metrics.select(["all"]))
    with refused(PluginError, usual[0].name, "a-namesake 1.0"):
        metrics.select([usual[0].name])


def test_all_stands_for_metrics_alone() -> None:
    with refused(UsageError, "generator", "'all'", code="unknown-name"):
        toys.registry().generators.select(["all"])


def test_the_list_says_which_are_no_default(install: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    plain = WORKING.replace("NAME", "plain")
    install("two-metrics", plain.replace(")]", '), Metric("rare", Access.LABELS, "clean", max, 0.9, default=False)]'))
    assert main(["plugins"]) == 0
    assert "optional metric plain, rare" in capsys.readouterr().out
    assert main(["plugins", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["plugins"]
    [components] = [plugin["components"] for plugin in listed if plugin["name"] == "two_metrics"]
    assert components == [
        {"kind": "metric", "name": "plain", "default": False},
        {"kind": "metric", "name": "rare", "default": False},
    ]
