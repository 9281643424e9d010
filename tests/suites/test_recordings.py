"""Recordings as inputs: samples that the test wrote, cut and filled by the rule that is documented."""

import wave
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from deepjudge_core import InputSpec, load_inputs
from deepjudge_core.errors import InputError
from deepjudge_core.suites.inputs import open_inputs

soundfile = pytest.importorskip("soundfile")

RATE = 8000


def record(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Written without the library that reads it: 16 bits, ``(n,)`` or ``(n, channels)`` whole numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


@pytest.fixture
def words(tmp_path: Path) -> Path:
    record(tmp_path / "words" / "no" / "a.wav", np.arange(100) * 300)
    record(tmp_path / "words" / "yes" / "b.wav", -np.arange(40) * 300)
    record(tmp_path / "words" / "yes" / "c.wav", np.stack([np.arange(100) * 200, np.arange(100) * 100], axis=1))
    return tmp_path / "words"


@pytest.mark.parametrize("shape", [(60,), (1, 60), (60, 1)])
def test_cut_filled_and_averaged(words: Path, shape: tuple[int, ...]) -> None:
    offered = open_inputs(words)
    assert offered.expected == InputSpec((100,))
    inputs = offered.fitted(InputSpec(shape))
    expected = np.zeros((3, 60))
    expected[0], expected[1, :40], expected[2] = np.arange(60) * 300, -np.arange(40) * 300, np.arange(60) * 150
    np.testing.assert_allclose(inputs.x, expected / 2**15, atol=1e-7)
    assert inputs.y is not None
    assert (inputs.y.tolist(), inputs.classes, inputs.bounds) == ([0, 1, 1], ("no", "yes"), (-1, 1))
    said = "\n".join(inputs.notes)
    assert all(fact in said for fact in ("8000 Hz", "60 samples", "2 were cut", "1 got zeros", "channels of 1"))
    assert offered.fitted(InputSpec((None,))).x.shape == (3, 100)


def test_flac_is_the_same(words: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(words / "no" / "a.wav", dtype="int16")
    (tmp_path / "flac" / "no").mkdir(parents=True)
    soundfile.write(tmp_path / "flac" / "no" / "a.flac", samples, rate)
    np.testing.assert_array_equal(load_inputs(tmp_path / "flac").x, load_inputs(words).x[:1])


def test_what_is_refused(words: Path) -> None:
    with refused(InputError, "40x32", words):
        open_inputs(words).fitted(InputSpec((40, 32)))
    record(words / "no" / "other.wav", np.arange(10), rate=16000)
    with refused(InputError, "8000 Hz", "16000 Hz", "other.wav"):
        load_inputs(words)
    for content in (b"", b"RIFF", (words / "no" / "a.wav").read_bytes()[:30]):
        (words / "no" / "other.wav").write_bytes(content)
        with refused(InputError, words, "no/other.wav"):
            load_inputs(words)
    (words / "no" / "other.wav").rename(words / "no" / "other.png")
    with refused(InputError, "other.png"):
        load_inputs(words)
