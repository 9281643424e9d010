"""Keys on the command line: made from the victim, shown, carried in suites, and refused with one line."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from commands import HOW, MADE, WHOLE, Cli, write
from refusals import refused

import deepjudge_core as dj
from deepjudge_core.errors import CalibrationError
from deepjudge_core.files import storage
from deepjudge_core.files.documents import plain
from deepjudge_core.suites.keys import key_arrays, key_digest, key_header
from deepjudge_core.testing.numpy_model import NumpyModel

NONCE = "0a" * 32
TRIALS = 20
MAKE = ("key", "adi", "victim.toy", "--inputs", "in.npz", "--option", "inputs=noise", "--option", f"trials={TRIALS}")


@pytest.fixture
def keyed(cli: Cli) -> Cli:
    """The folder with a key, and a model that carries it."""
    assert cli(*MAKE, "--nonce", NONCE, "-o", "adi.key.safetensors")[0] == 0
    save_marked("marked.toy", [dj.load_key("adi.key.safetensors")])
    return cli


def save_marked(path: str, keys: Sequence[dj.Key], noise: float = 0.0) -> None:
    """Random features, and a last layer that is fitted to the task and to the triggers."""
    x, y = toys.draw(toys.SHAPE, toys.CLASSES, 400, 1)
    (matrix, bias), last = NumpyModel.random(toys.SHAPE, (300,), toys.CLASSES, seed=5).weights
    first = (3 * matrix, 3 * (bias - matrix.sum(axis=0) / 2))
    model = NumpyModel([first, last], toys.SHAPE)
    hidden = list(model.layers)[-2]
    x = np.concatenate([x, *(np.repeat(np.asarray(key.inputs), 20, axis=0) for key in keys)])
    y = np.concatenate([y, *(np.repeat(np.asarray(key.labels), 20) for key in keys)])
    features = model.activations(x.astype(np.float32), [hidden])[hidden]
    features = np.hstack([features, np.ones((len(x), 1))])
    targets = 8 * np.eye(toys.CLASSES)[y]
    solution = np.linalg.solve(features.T @ features + 1e-3 * np.eye(features.shape[1]), features.T @ targets)
    marked = NumpyModel([first, (solution[:-1], solution[-1])], toys.SHAPE)
    toys.save_weights(Path(path), marked.perturbed(noise, seed=1) if noise else marked)


def test_a_key_is_made_shown_and_found_in_a_copy(keyed: Cli) -> None:
    assert keyed("suite", "marked.toy", "--inputs", "in.npz", *MADE, "--key", "adi.key.safetensors", "-o", "s")[0] == 0
    key = dj.load_key("adi.key.safetensors")
    assert dj.load_suite("s").keys[0].trials == key.trials == TRIALS
    assert Path("s").stat().st_mode & 0o777 == 0o600
    save_marked("copy.toy", [key], noise=0.002)
    assert keyed("calibrate", "s", "controls", "-o", "c")[0] == 0
    assert "adi" in next(line for line in keyed("commit", "s", "c", "-o", "t")[1].splitlines() if "keys" in line)
    status, out, _ = keyed("judge", "s", "c", "copy.toy", *HOW)
    assert (status, "adi" in out) == (1, True)
    status, out, _ = keyed("show", "s")
    assert (status, key_digest(key)[:16] in out, "0.25" in out) == (0, True, True)


def test_what_is_said_of_a_key_keeps_its_secrets(cli: Cli) -> None:
    status, out, _ = cli(*MAKE, "--nonce", NONCE, "-o", "k")
    shown = cli("show", "k")[1]
    key = dj.load_key("k")
    assert (status, key.nonce.hex()) == (0, NONCE)
    for text in (out, shown, cli("show", "k", "--json")[1]):
        assert NONCE not in text
        assert [fact for fact in ("adi", str(TRIALS), "0.25", key_digest(key)) if fact not in text] == []
    # Whether it is embedded or asked at once, the next command is one that there is.
    assert "deepjudge embed victim.toy k --data" in out


def test_equal_arguments_give_equal_bytes(cli: Cli) -> None:
    for path in ("a", "b"):
        assert cli(*MAKE, "--nonce", NONCE, "-o", path)[0] == 0
    assert Path("a").read_bytes() == Path("b").read_bytes()
    assert cli(*MAKE, "-o", "c")[0] == 0
    assert dj.load_key("c").nonce != dj.load_key("a").nonce


def test_no_other_key_is_written_over(cli: Cli) -> None:
    assert cli(*MAKE, "--nonce", NONCE, "-o", "k")[0] == 0
    before = Path("k").read_bytes()
    cli.refuses(2, "would-overwrite", *MAKE, "-o", "k")
    cli.refuses(2, "would-overwrite", *MAKE, "--nonce", "0b" * 32, "-o", "k")
    assert cli(*MAKE, "--nonce", NONCE, "-o", "k")[0] == 0
    assert Path("k").read_bytes() == before


def test_the_next_command_reads_inputs_in_the_same_way(cli: Cli) -> None:
    assert "--bounds 0,2 " in cli(*MAKE, "--bounds", "0,2", "-o", "k")[1].splitlines()[-1]


def test_python_makes_the_same_key(cli: Cli) -> None:
    assert cli(*MAKE, "--nonce", NONCE, "-o", "k")[0] == 0
    options = {"inputs": "noise", "trials": TRIALS}
    session = dj.Session(sandbox=None)
    made = dj.make_key("adi", "victim.toy", "in.npz", options=options, nonce=bytes.fromhex(NONCE), session=session)
    assert key_digest(made) == key_digest(dj.load_key("k"))


def test_no_model_is_run_for_a_drawn_key(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(*_: object) -> None:
        raise AssertionError("expected no model to be run")

    monkeypatch.setattr(NumpyModel, "predict", predict)
    assert cli(*MAKE, "-o", "k")[0] == 0


def test_keys_lie_in_the_range_and_layout_of_the_suites_cases(cli: Cli) -> None:
    shape = (3, 4, 4)
    toys.save_model(Path("first.toy"), shape=shape, layout="channels_first")
    model = toys.make_model(shape=shape, layout="channels_first")
    x, y = toys.make_inputs(model, n=60)
    pictures = np.round(np.moveaxis(x, 1, -1) * 255).astype(np.uint8)
    np.savez("pictures.npz", x_test=pictures, y_test=y)
    given = ("first.toy", "--inputs", "pictures.npz", "--scale", "255")
    made = cli("suite", *given, "-n", "20", "-g", "shove", "--force", "-o", "s")
    assert made[0] == 0, made
    others = np.round(np.random.default_rng(2).random((30, 4, 4, 3)) * 255).astype(np.uint8)
    np.savez("others.npz", x_train=others, y_train=np.zeros(30, int))
    made = cli("key", "adi", *given, "--auxiliary", "others.npz", "--option", "trials=10", "-o", "k")
    assert made[0] == 0
    key, suite = dj.load_key("k"), dj.load_suite("s")
    assert (key.shape, suite.bounds) == (suite.cases.inputs.shape[1:], (0.0, 1.0))
    wanted = np.moveaxis(others.astype(np.float32) / 255, -1, 1)
    assert all(np.abs(wanted - one).max(axis=(1, 2, 3)).min() < 1e-6 for one in np.asarray(key.inputs))


KEY = "adi.key.safetensors"
GIVEN = ("adi", "victim.toy", "--inputs", "in.npz")
SUITE = ("suite", "marked.toy", "--inputs", "in.npz", *MADE, "--key")
REFUSED: tuple[tuple[int, str, tuple[str, ...]], ...] = (
    (2, "wrong-value", ("key", *GIVEN, "--nonce", "0a0b")),
    (2, "wrong-value", ("key", *GIVEN, "--nonce", "zz" * 32)),
    (2, "unknown-name", ("key", "ady", *GIVEN[1:])),
    (2, "unknown-option", ("key", *GIVEN, "--option", "trails=3")),
    (2, "wrong-value", ("key", *GIVEN, "--option", "trials=0")),
    (4, "wrong-inputs", ("key", *GIVEN, "--auxiliary", "wide.npz")),
    (4, "wrong-inputs", ("key", *GIVEN, "--auxiliary", "bright.npz")),
    (4, "missing-value", ("key", *GIVEN)),
    (4, "wrong-inputs", ("key", "adi", "victim.toy", "--inputs", KEY)),
    (4, "missing-value", ("key", "ewe", *GIVEN[1:], "--auxiliary", "in.npz")),
    (4, "wrong-file", ("key", *GIVEN, "--zoo", "controls")),
    (4, "conflict", ("suite", "victim.toy", *SUITE[2:], KEY)),
    (4, "conflict", ("suite", "other.toy", "--inputs", "other.npz", *MADE, "--key", KEY)),
    (4, "conflict", ("suite", "five.toy", "--inputs", "five.npz", *MADE, "--key", KEY)),
    (2, "conflict", (*SUITE, KEY, "--key", KEY)),
    (4, "damaged-file", (*SUITE, "edited.safetensors")),
    (4, "wrong-file", (*SUITE, "s.safetensors")),
    (2, "conflict", ("suite", "marked.toy", "--weights", "--key", KEY)),
    (4, "wrong-file", ("observe", KEY, "victim.toy")),
    (4, "wrong-file", ("calibrate", KEY, "controls")),
)


def test_what_is_refused_is_one_line_and_leaves_nothing(keyed: Cli) -> None:
    np.savez("wide.npz", x_train=np.zeros((200, 13), np.float32), y_train=np.zeros(200, int))
    np.savez("bright.npz", x_train=np.full((200, 12), 7, np.float32), y_train=np.zeros(200, int))
    toys.save_model(Path("other.toy"), shape=[9])
    toys.save_model(Path("five.toy"), classes=5)
    for name, model in (("other", toys.make_model(shape=(9,))), ("five", toys.make_model(classes=5))):
        x, y = toys.make_inputs(model)
        np.savez(f"{name}.npz", x=x, y=y)
    key = dj.load_key("adi.key.safetensors")
    edited = replace(key, labels=(np.asarray(key.labels) + 1) % key.classes)
    storage.write(Path("edited.safetensors"), storage.seal("key", plain(key_header(edited)), key_arrays(edited, "")))
    assert keyed("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    for status, code, words in REFUSED:
        keyed.refuses(status, code, *words, "-o", "new.safetensors")


def test_a_victim_without_the_key_is_refused_before_cases_are_made(keyed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr("deepjudge_core.suites.generation._generate", lambda *given: made.append(given))
    keyed.refuses(4, "conflict", "suite", "victim.toy", *SUITE[2:], KEY, "-o", "s")
    assert made == []


def test_an_audit_takes_keys_from_its_file_and_notices_another_one(keyed: Cli) -> None:
    write(WHOLE, ("seeds = 20", 'seeds = 20\nkeys = ["adi.key.safetensors"]'), ("victim.toy", "marked.toy"))
    save_marked("copy.toy", [dj.load_key("adi.key.safetensors")], noise=0.002)
    ended = keyed("audit", "audit.toml")
    assert ended[0] == 1, ended
    suite = dj.load_suite("out/suite.safetensors")
    assert [key.nonce.hex() for key in suite.keys] == [NONCE]
    # The file has the same name, and another key that the victim does not carry.
    Path(KEY).unlink()
    assert keyed(*MAKE, "--nonce", "0b" * 32, "-o", KEY)[0] == 0
    status, _, err = keyed("audit", "audit.toml")
    assert (status, "(conflict)" in err) == (4, True)


def test_controls_that_a_key_was_made_with_say_nothing_of_it(keyed: Cli) -> None:
    control = dj.open_model(toys.make_model(1))
    key = replace(dj.load_key(KEY), drawn=None)
    assert keyed(*SUITE, KEY, "-o", "s")[0] == 0
    suite = dj.load_suite("s")
    reference = replace(suite, keys=(replace(key, references=(control.digest,)),))
    calibration = dj.calibrate(reference, [dj.observe(control, reference)])
    assert (calibration.measurements[0]["adi"].value, len(calibration.notes) > 0) == (None, True)
    stolen = replace(suite, keys=(replace(key, surrogates=(control.digest,)),))
    with refused(CalibrationError, control.name):
        dj.calibrate(stolen, [dj.observe(control, stolen)])
