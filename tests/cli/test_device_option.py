"""``--device`` on the command line and in ``AUDIT.toml``: what each command does with it, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import toys
from commands import HOW, MADE, WHOLE, Cli, write

from deepjudge_core import Adapter, load_observation, load_suite
from deepjudge_core.cli.main import main
from deepjudge_core.models.model import Model

SUITE = ("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The toy framework has a GPU, and notes what it was told."""
    said: list[str | None] = []
    [toy] = toys.deepjudge_adapters()

    def opened(source: Any, *, name: str | None = None, device: str | None = None) -> Model:
        said.append(device)
        model = toy.open(source, name=name)
        model.device = device
        return model

    @toys.hookimpl
    def deepjudge_adapters() -> list[Adapter]:
        return [Adapter("toy", (".toy",), toy.accepts, opened, cuda=lambda number: number == 0, network=toy.network)]

    monkeypatch.setattr(toys, "deepjudge_adapters", deepjudge_adapters)
    return said


@pytest.mark.parametrize(
    "command",
    [
        SUITE,
        ("observe", "s.safetensors", "victim.toy", "-o", "o.safetensors"),
        ("calibrate", "s.safetensors", "controls", "-o", "c.safetensors"),
        ("judge", "s.safetensors", "copy.toy", "-o", "out"),
        ("audit", "victim.toy", "copy.toy", "--inputs", "in.npz", "-o", "out"),
        ("show", "victim.toy"),
        ("fleet", "s.safetensors", "copy.toy", "-o", "out"),
    ],
    ids=lambda words: words[0],
)
def test_a_gpu_needs_models_in_this_process(
    command: tuple[str, ...], cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--device", "cuda"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("deepjudge: ")
    assert err.endswith(" (conflict)\n")
    assert [fact for fact in ("--device cuda", "--no-sandbox", "--device cpu") if fact not in err] == []
    assert sorted(path.name for path in Path().iterdir() if path.suffix == ".safetensors" or path.name == "out") == []


def test_what_is_no_device_is_refused(cli: Cli) -> None:
    cli.refuses(2, "wrong-value", *SUITE, "--device", "gpu", facts=["--device", "cuda:N"])


def test_models_run_where_they_are_told(cli: Cli, told: list[str | None]) -> None:
    assert cli(*SUITE, "--device", "cuda")[0] == 0
    assert cli("observe", "s.safetensors", "copy.toy", "-o", "o.safetensors")[0] == 0
    assert cli("calibrate", "s.safetensors", "controls", "--device", "auto", "-o", "c.safetensors")[0] == 0
    assert told == ["cuda:0", "cpu", *["cuda:0"] * 4]
    victim, suspect = load_suite(Path("s.safetensors")).victim.model, load_observation(Path("o.safetensors")).model
    assert (victim.device, suspect.device) == ("cuda:0", "cpu")


def test_an_absent_gpu_ends_the_command_before_anything_is_opened(cli: Cli, told: list[str | None]) -> None:
    assert cli(*SUITE)[0] == 0
    assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
    del told[:]
    judged = ("judge", "s.safetensors", "copy.toy", "honest.toy", "--calibration", "c.safetensors", *HOW, "-o", "out")
    facts = ["copy.toy", "--device cuda:1", "--device cpu"]
    cli.refuses(4, "no-device", *judged, "--device", "cuda:1", facts=facts)
    fleet = ("fleet", "s.safetensors", "copy.toy", *HOW, "-o", "results")
    cli.refuses(4, "no-device", *fleet, "--device", "cuda:1", facts=facts)
    assert told == []


def test_a_file_says_the_device(cli: Cli, told: list[str | None]) -> None:
    write(WHOLE, ('output = "out"', 'output = "out"\ndevice = "cuda"\nsandbox.use = false'))
    status, _, err = cli("audit", "audit.toml")
    assert (status, err) == (1, "")
    assert set(told) == {"cuda:0"}
    write(WHOLE, ('output = "out"', 'output = "out"\ndevice = "cuda"'))
    cli.refuses(2, "audit-file", "audit", "audit.toml", facts=["audit.toml", "cuda"])
    write(WHOLE, ('output = "out"', 'output = "out"\ndevice = "tpu"'))
    cli.refuses(2, "audit-file", "audit", "audit.toml", facts=["audit.toml", "tpu"])


def test_answers_from_another_device_are_asked_for_again(cli: Cli, told: list[str | None]) -> None:
    device = ('output = "out"', 'output = "out"\ndevice = "cuda"\nsandbox.use = false')
    write(WHOLE, device)
    cli("audit", "audit.toml")
    asked = len(told)
    assert cli("audit", "audit.toml")[0] == 1
    assert len(told) == asked
    write(WHOLE, device, ("cuda", "cpu"))
    cli("audit", "audit.toml")
    assert set(told[asked:]) == {"cpu"}


def test_a_zoo_refuses_a_gpu_that_its_victim_cannot_train_on(cli: Cli) -> None:
    zoo = ("zoo", "victim.toy", "--data", "in.npz", "--controls-only", "--control-count", "1", "--epochs", "1")
    cli.refuses(4, "no-device", *zoo, "-o", "zoo", "--device", "cuda", facts=["victim.toy", "--device cuda"])
