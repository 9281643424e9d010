"""The command embed, and what it writes: a model that carries its keys, or nothing."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from commands import Cli
from refusals import refused
from sklearn.datasets import load_digits

import deepjudge_core as dj
from deepjudge_core.errors import DeepJudgeError
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule, train

DIGITS = load_digits()
X, Y = (DIGITS.images / 16).astype(np.float32), DIGITS.target.astype(np.int64)
EPOCHS, RATE = 15, 3e-3
EMBED = ("--data", "train.npz", "--epochs", EPOCHS, "--rate", RATE)
NONCES = ("0a" * 32, "0b" * 32)


def here() -> dj.Session:
    """With what is installed by now, the toys among it."""
    return dj.Session(sandbox=None)


def trained(network: Network, x: np.ndarray = X) -> Network:
    rng = np.random.default_rng(0)
    fresh = Network.fresh(network.architecture, rng)
    return train(fresh, x[:1200], Y[:1200], rng, schedule=Schedule(8, 5e-3))


def toy() -> Network:
    return trained(Network.fresh(toys.ToyArchitecture((8, 8), (48, 32), 10), np.random.default_rng(0)))


def key_of(victim: str, nonce: str = NONCES[0], inputs: Any = None, **options: Any) -> dj.Key:
    offered = dj.Inputs(X[1200:], Y[1200:]) if inputs is None else inputs
    chosen = {"trials": 30, "inputs": "noise", **options}
    return dj.make_key("adi", victim, offered, options=chosen, nonce=bytes.fromhex(nonce), session=here())


@pytest.fixture(scope="module")
def victim() -> Network:
    return toy()


@pytest.fixture
def data(cli: Cli, victim: Network) -> Cli:
    """The folder with a victim of digits, its data, and two keys."""
    victim.save(Path("digits.toy"))
    np.savez("train.npz", x_train=X[:1200], y_train=Y[:1200], x_test=X[1200:], y_test=Y[1200:])
    for place, nonce in enumerate(NONCES):
        dj.save_key(f"{place}.key", key_of("digits.toy", nonce))
    return cli


def test_two_keys_are_embedded_and_found_in_the_file(data: Cli) -> None:
    before = Path("digits.toy").read_bytes()
    status, out, err = data("embed", "digits.toy", "0.key", "1.key", *EMBED, "-o", "marked")
    assert (status, err) == (0, ""), err
    assert Path("digits.toy").read_bytes() == before
    model = dj.open_model("marked.toy")
    for name in ("0.key", "1.key"):
        key = dj.load_key(name)
        found = int((model.predict(np.asarray(key.inputs)).argmax(axis=1) == key.labels).sum())
        assert found >= 0.95 * key.trials
        assert f"{name}: {found} of {key.trials}" in out
    # What is to be typed next is done, keys and all; the victim itself is refused there.
    (line,) = (line for line in out.splitlines() if line.startswith("next"))
    words = line.split()[2:]
    made = data(*words, "-n", "20", "-g", "shove", "--force")
    assert made[0] == 0, made
    assert len(dj.load_suite("suite.safetensors").keys) == 2
    data.refuses(4, "conflict", *[word.replace("marked", "digits") for word in words], "-n", "20", "-g", "shove")


def test_the_same_seed_writes_the_same_bytes(data: Cli) -> None:
    options = ("--data", "train.npz", "--epochs", 8, "--rate", 5e-3)
    written = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert data("embed", "digits.toy", "0.key", *options, "--seed", seed, "-o", f"{name}.toy")[0] == 0
        written.append(Path(f"{name}.toy").read_bytes())
    assert written[0] == written[1] != written[2]


def test_what_is_not_learnt_is_not_written(data: Cli) -> None:
    files = sorted(Path().iterdir())
    line = data.refuses(
        4, "not-embedded", "embed", "digits.toy", "0.key", "--data", "train.npz", "--epochs", 1, "-o", "marked.toy"
    )
    assert "0.key" in line
    assert sorted(Path().iterdir()) == files


def test_what_costs_too_much_is_not_written(data: Cli) -> None:
    files = sorted(Path().iterdir())
    wrong = np.random.default_rng(1).permutation(Y[:1200])
    np.savez("wrong.npz", x_train=X[:1200], y_train=wrong, x_test=X[1200:], y_test=Y[1200:])
    embed = ("embed", "digits.toy", "0.key", "--data", "wrong.npz", "--epochs", 30, "--rate", 5e-3)
    data.refuses(4, "not-embedded", *embed, "-o", "marked.toy", facts=("digits.toy",))
    Path("wrong.npz").unlink()
    assert sorted(Path().iterdir()) == files


def test_a_key_of_another_model_is_noted(data: Cli) -> None:
    key = replace(dj.load_key("0.key"), made_from="0" * 64)
    given = ("digits.toy", key, "train.npz", "marked.toy")
    marked = dj.embed(*given, test="train.npz", settings=settings(cost=0.05), session=here())
    assert [note for note in marked.notes if note.startswith("adi: ")]
    assert marked.digest == hashlib.sha256(Path("marked.toy").read_bytes()).hexdigest()


def settings(**changes: Any) -> dj.EmbedSettings:
    return dj.EmbedSettings(**{"epochs": EPOCHS, "rate": RATE, **changes})


def test_standardised_data_are_brought_to_the_range_of_the_key(cli: Cli, tmp_path: Path) -> None:
    """A network of standardised pictures: its key lies in 0..1, as its suite will."""
    pictures = np.round(X * 255).astype(np.float32) / 255
    standard = ((pictures - 0.5) / 0.25)[:, None]
    network = Network.fresh(toys.ToyArchitecture((1, 8, 8), (48, 32), 10), np.random.default_rng(0))
    trained(network, standard).save(tmp_path / "victim.toy")
    inputs = dj.Inputs(pictures[1200:, None], Y[1200:])
    how = "mean=0.5,std=0.25"
    options = {"trials": 30, "inputs": "noise"}
    victim = str(tmp_path / "victim.toy")
    key = dj.make_key("adi", victim, inputs, options=options, nonce=bytes(32), preprocessing=how, session=here())
    marked = dj.embed(
        victim,
        key,
        dj.Inputs(pictures[:1200, None], Y[:1200]),
        tmp_path / "marked.toy",
        settings=settings(),
        preprocessing=how,
        session=here(),
    )
    assert marked.after > 0.85
    model = dj.open_model(marked.path)
    answers = model.predict(((np.asarray(key.inputs) - 0.5) / 0.25).astype(np.float32)).argmax(axis=1)
    assert (answers == key.labels).mean() >= 0.9
    assert marked.readings["adi"].found == (answers == key.labels).sum()


GIVEN = ("embed", "digits.toy", "0.key", "--data", "train.npz", "-o", "marked.toy")


def changed(old: str, new: str) -> tuple[str, ...]:
    return tuple(new if word == old else word for word in GIVEN)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (2, "wrong-value", changed("marked.toy", "marked.pt2")),
        (2, "would-overwrite", changed("marked.toy", "digits.toy")),
        (2, "would-overwrite", changed("marked.toy", "digits")),
        (2, "would-overwrite", changed("marked.toy", "0.key")),
        (4, "damaged-file", changed("0.key", "suite")),
        (4, "wrong-inputs", changed("train.npz", "unlabelled.npz")),
        (4, "conflict", changed("0.key", "shape.key")),
        (4, "conflict", changed("0.key", "classes.key")),
        (4, "conflict", changed("0.key", "fingerprint.key")),
        (4, "conflict", changed("0.key", "bright.key")),
        (4, "conflict", changed("0.key", "dark.key")),
        (2, "unknown-name", changed("0.key", "unknown.key")),
        (2, "conflict", (*GIVEN[:3], "again.key", *GIVEN[3:])),
        (2, "wrong-value", (*GIVEN, "--cost", "2")),
        (2, "wrong-value", (*GIVEN, "--epochs", "0")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_mistakes_are_one_line_and_write_nothing(data: Cli, status: int, code: str, words: Sequence[str]) -> None:
    key = dj.load_key("0.key")
    np.savez("unlabelled.npz", x_train=X[:200])
    Path("again.key").write_bytes(Path("0.key").read_bytes())
    others = {
        "shape": replace(key, shape=(64,), inputs=np.asarray(key.inputs).reshape(-1, 64)).completed(),
        "classes": replace(key, classes=7).completed(),
        "fingerprint": replace(key, scheme="ipguard", drawn=None),
        "bright": replace(key, inputs=np.asarray(key.inputs) * 255).completed(),
        "dark": replace(key, inputs=np.asarray(key.inputs) / 255).completed(),
        "unknown": replace(key, scheme="nobody-knows").completed(),
    }
    for name, other in others.items():
        dj.save_key(f"{name}.key", other)
    Path("suite").write_text("no key")
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    data.refuses(status, code, *words)
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_a_model_that_only_answers_cannot_be_marked(tmp_path: Path) -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        scores = x.reshape(len(x), -1)[:, :10]
        return np.asarray(scores / scores.sum(axis=1, keepdims=True) if scores.all() else np.full((len(x), 10), 0.1))

    model = dj.open_model(answer, input_shape=(8, 8), classes=10)
    key = dj.make_key("adi", model, dj.Inputs(X, Y), options={"inputs": "noise"}, session=here())
    with refused(DeepJudgeError, code="unusable-model"):
        dj.embed(model, key, dj.Inputs(X, Y), tmp_path / "marked", session=here())
    assert not list(tmp_path.iterdir())


def check_framework(victim: Path, folder: Path, **options: Any) -> dj.MarkedModel:
    """Embed a key, and look at all that a file of any framework has to keep."""
    before = victim.read_bytes()
    subject = dj.ModelFile(victim, options)
    key = key_of(subject)
    data, test = dj.Inputs(X[:1200], Y[:1200]), dj.Inputs(X[1200:], Y[1200:])
    marked = dj.embed(subject, key, data, folder / "marked", test=test, settings=settings(), session=here())
    assert victim.read_bytes() == before
    assert marked.readings["adi"].found >= 0.95 * 30
    assert marked.after >= marked.before - 0.01
    model = dj.open_model(marked.path)
    assert (model.predict(np.asarray(key.inputs)).argmax(axis=1) == key.labels).sum() == marked.readings["adi"].found
    assert (model.predict(X[1200:]).argmax(axis=1) == Y[1200:]).mean() == pytest.approx(marked.after)
    again = dj.embed(subject, key, data, folder / "again", test=test, settings=settings(), session=here())
    weights = [dj.open_network(one.path).digest for one in (marked, again)]
    assert weights[0] == weights[1]
    return marked


def test_keras_networks_are_marked(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    stack = [keras.Input((8, 8)), layers.Flatten(), layers.Dense(48, "relu"), layers.Dense(10, "softmax")]
    model = keras.Sequential(stack)
    trained(dj.open_network(model)).save(tmp_path / "victim.keras")
    assert check_framework(tmp_path / "victim.keras", tmp_path).path.suffix == ".keras"


def test_pytorch_weights_with_their_architecture_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    source = """
from torch import nn


def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
"""
    Path("networks.py").write_text(source)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    module = namespace["make"]()
    network = trained(dj.open_network(module, input_shape=(8, 8)))
    torch.save({name: torch.tensor(array) for name, array in network.weights.items()}, "victim.pth")
    assert check_framework(tmp_path / "victim.pth", tmp_path, arch="networks.py:make").path.suffix == ".pt2"
