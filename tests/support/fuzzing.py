"""Files of every kind that deepjudge reads, and damages of their bits: what is read of them is read or refused.

``python benchmarks/fuzz.py --seconds 3600`` goes on for as long as that.
"""

import contextlib
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import toys
from authority import OPENSSL, Authority
from bundling import reseal, write_key
from commands import HOW, WHOLE, install_toys
from deepjudge_schemes.adi import ADI
from places import ROOT
from safetensors.numpy import save

from deepjudge_core import load_inputs, load_observation, load_suite, save_calibration, save_observation, save_suite
from deepjudge_core.bundles.commitment import load_commitment
from deepjudge_core.bundles.log import read_log
from deepjudge_core.bundles.manifest import MANIFEST
from deepjudge_core.bundles.register import read_register
from deepjudge_core.bundles.signing import load_public_key, load_signer, open_envelope
from deepjudge_core.bundles.timestamp import load_certificates, load_response, make_request
from deepjudge_core.bundles.verify import verify_bundle
from deepjudge_core.cli import main as cli_main
from deepjudge_core.cli.commands import audit
from deepjudge_core.components.registry import Configured
from deepjudge_core.errors import DeepJudgeError, MissingExtraError
from deepjudge_core.files import storage
from deepjudge_core.judging.calibration import load_controls
from deepjudge_core.marking.making import Material, make_key
from deepjudge_core.report.documents import read_report
from deepjudge_core.suites.keys import load_key, save_key
from deepjudge_core.weights.reading.tensors import open_tensors
from deepjudge_core.weights.values import StoredWeights
from deepjudge_core.zoo.manifest import load_zoo

SECONDS = 5.0
"""Of the processor that reading one small file may take."""

_GOLDEN = ROOT / "tests" / "golden"
_OWN = ("suite", "observation", "calibration", "key")
_API = """url = "https://localhost:8000/score"
protocol = "template"
classes = ["a", "b", "c", "d"]
shape = [12]
input = "-1..1"
headers = { Authorization = "env:TOKEN" }
batch = 4
rate = 2.5
timeout = 30
cache = false
request = { body = { inputs = "$inputs" } }
answer = { each = "/predictions", scores = "" }
"""
_AUDIT = (
    WHOLE.replace('path = "in.npz"', 'path = "in.npz"\nbounds = [0.0, 1.0]')
    .replace("seeds = 20", 'seeds = 20\nlayers = ["dense1"]')
    .replace("[generators.shove]", "[generators.shove]\neps = 0.5")
)


class DefectError(Exception):
    """A reader that did what none may: raised what is none of deepjudge's errors, or took too long."""


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Attributes:
        whole: A valid one.
        read: Reads one at a path.
        name: What it is called, for those that go by it.
        slow: Whether much is read besides.
    """

    whole: bytes
    read: Callable[[Path], Any]
    name: str = "damaged"
    slow: bool = False


def corpus(folder: Path) -> dict[str, Reader]:
    """A reader and a valid file of each kind. The folder, which is the current one, gets what the files refer to."""
    install_toys(folder)
    _write_models(folder)
    readers = {**_own_files(folder), **_documents(), **_bundle(folder), **_weights(folder), **_inputs(folder)}
    return dict(sorted(readers.items()))


def damaged(rng: np.random.Generator, whole: bytes) -> bytes:
    """Bytes of which one to four were changed, left out, put in, repeated or cut off; more often near the ends."""
    data = bytearray(whole)
    for _ in range(rng.integers(1, 5)):
        length = len(data)
        near = int(rng.integers(0, min(length, 256) + 1))
        place = int(rng.choice([near, length - near, rng.integers(0, length + 1)]))
        end = min(place + int(rng.integers(1, 9)), length)
        match rng.choice(["flip", "flip", "put", "extreme", "insert", "delete", "repeat", "cut"]):
            case "flip" if place < length:
                data[place] ^= 1 << int(rng.integers(8))
            case "put":
                data[place:end] = rng.bytes(end - place)
            case "extreme":
                data[place:end] = rng.choice([b"\0", b"\xff", b"\x7f", b"9", b"["]) * (end - place)
            case "insert":
                data[place:place] = rng.bytes(int(rng.integers(1, 9)))
            case "delete":
                del data[place:end]
            case "repeat":
                data[place:place] = data[place : place + int(rng.integers(1, 400))]
            case "cut":
                del data[place:]
    return bytes(data)


def resealed(rng: np.random.Generator, whole: bytes, path: Path) -> bytes:
    """A file of deepjudge's own whose numbers or header were damaged by who knows how to seal it; else unchanged."""
    path.write_bytes(whole)
    content = storage.read(path, _OWN)
    header, arrays = dict(content.header), dict(content.arrays)
    name = str(rng.choice(sorted(arrays)))
    if rng.integers(2):
        numbers = bytearray(np.ascontiguousarray(arrays[name]).tobytes())
        for _ in range(rng.integers(1, 5)) if numbers else ():
            numbers[int(rng.integers(len(numbers)))] ^= 1 << int(rng.integers(8))
        arrays[name] = np.frombuffer(bytes(numbers), arrays[name].dtype).reshape(arrays[name].shape)
    else:
        with contextlib.suppress(ValueError):
            header = json.loads(damaged(rng, json.dumps(header).encode()))
    try:
        storage.write(path, storage.seal(content.kind, header, arrays))
    except (DeepJudgeError, ValueError, TypeError, AttributeError):  # who writes it is not asked for one line
        return whole
    return path.read_bytes()


def attempts(readers: dict[str, Reader], seed: int) -> Iterator[tuple[str, bytes]]:
    """One damage after another, of each kind in turn, of one of the slow ones at a time, for ever."""
    rng = np.random.default_rng(seed)
    slow = [kind for kind, reader in readers.items() if reader.slow]
    for one in itertools.cycle(slow):
        for kind in (one, *(kind for kind in readers if kind not in slow)):
            reader = readers[kind]
            anew = kind in _OWN and rng.integers(2)
            yield kind, resealed(rng, reader.whole, Path("resealed")) if anew else damaged(rng, reader.whole)


def attempt(reader: Reader, data: bytes, folder: Path) -> bool:
    """Read a damaged file: whether it was read, and not refused.

    Raises:
        DefectError: When anything else came of it.
    """
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    begun = time.process_time()
    try:
        reader.read(path)
    except DeepJudgeError as error:
        if not str(error).isprintable():
            raise DefectError(f"an error of several lines: {error!r}") from error
        return False
    except Exception as error:
        raise DefectError(f"{type(error).__name__}: {error}") from error
    finally:
        spent = time.process_time() - begun
        if spent > SECONDS:
            raise DefectError(f"{spent:.1f} s for {len(data)} bytes")
    return True


def command(*arguments: str) -> None:
    """A command that may refuse what it is given, in one line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli_main.main(arguments)
    said = out.getvalue() + err.getvalue()
    if status not in (0, 1, 2, 3, 4) or "internal error" in said or not said.replace("\n", "").isprintable():
        raise DefectError(f"status {status}: {said}")


def _write_models(folder: Path) -> None:
    toys.save_model(folder / "victim.toy")
    toys.save_model(folder / "copy.toy", noise=0.05)
    (folder / "controls").mkdir()
    for seed in (1, 2, 3):
        toys.save_model(folder / "controls" / f"c{seed}.toy", seed=seed)
    x, y = toys.make_inputs(toys.make_model())
    np.savez(folder / "in.npz", x=x, y=y)


def _own_files(folder: Path) -> dict[str, Reader]:
    save_suite(folder / "suite.safetensors", toys.suite())
    save_observation(folder / "observation.safetensors", toys.seen(0, 0.05))
    save_calibration(folder / "calibration.safetensors", toys.calibration())
    x, y = toys.draw(toys.SHAPE, toys.CLASSES, 60, 0)
    scheme = Configured(ADI, {"trials": 8, "inputs": "noise"}, "here")
    save_key(folder / "key.safetensors", make_key(toys.make_model(), scheme, Material(x, y, (0.0, 1.0)), bytes(32)))
    reading = dict(zip(_OWN, (load_suite, load_observation, load_controls, load_key), strict=True))
    return {kind: Reader((folder / f"{kind}.safetensors").read_bytes(), read) for kind, read in reading.items()}


def _documents() -> dict[str, Reader]:
    def audited(path: Path) -> None:
        original, audit.run_plan = audit.run_plan, lambda plan, registry: 0  # no model is run
        try:
            command("audit", str(path))
        finally:
            audit.run_plan = original

    from deepjudge_http.description import read as read_api

    golden = {path.name: path.read_bytes() for path in _GOLDEN.iterdir() if path.is_file()}
    return {
        "report": Reader(golden["report-separate.json"], read_report),
        "power": Reader(golden["power.json"], read_report),
        "zoo": Reader(golden["zoo.json"], lambda path: load_zoo(path.parent), "zoo/zoo.json"),
        "commitment": Reader(golden["commitment.json"], load_commitment),
        "log": Reader(golden["queries.jsonl"], read_log),
        "audit": Reader(_AUDIT.encode(), audited, "damaged.toml", slow=True),
        "api": Reader(_API.encode(), read_api, "damaged.api.toml"),
    }


def _bundle(folder: Path) -> dict[str, Reader]:
    write_key("owner", 1)
    terms = ("suite.safetensors", "calibration.safetensors", *HOW)
    command("commit", *terms, "--key", "owner.pem", "-o", "commitment.json")
    judged = ("suite.safetensors", "copy.toy", "--calibration", "calibration.safetensors", *HOW)
    command("judge", *judged, "--commitment", "commitment.json", "--no-sandbox", "-o", "out")
    bundle, envelope = folder / "out", (folder / "commitment.json").read_bytes()

    def verified(path: Path) -> None:
        # With one of its files exchanged, by who writes a manifest that goes with it.
        before = {file: file.read_bytes() for file in bundle.rglob("*") if file.is_file()}
        (bundle / path.name).write_bytes(path.read_bytes())
        try:
            if path.name != MANIFEST:
                reseal()
            verify_bundle(bundle)
        finally:
            for file, whole in before.items():
                file.write_bytes(whole)

    def opened(path: Path) -> None:
        try:
            open_envelope(path.read_bytes(), path)
        except ValueError as error:  # which callers turn into a line
            if not str(error).isprintable():
                raise

    runs = next(folder.glob("*runs*"), None)
    members = {
        f"bundle/{path.name}": Reader(path.read_bytes(), verified, path.name, slow=True)
        for path in bundle.iterdir()
        if path.is_file() and path.suffix not in (".html", ".md")
    }
    registers = {} if runs is None else {"register": Reader(runs.read_bytes(), read_register)}
    pem = Path("owner.pem").read_bytes()
    return {
        **members,
        **registers,
        "commitment-signed": Reader(envelope, load_commitment),
        "envelope": Reader(envelope, opened),
        "private-key": Reader(pem, load_signer),
        "public-key": Reader(Path("owner.pub").read_bytes(), load_public_key),
        **_stamped(folder),
    }


def _stamped(folder: Path) -> dict[str, Reader]:
    authority = Authority.make(folder / "authority")
    readers = {"certificates": Reader((authority.folder / "root.pem").read_bytes(), load_certificates)}
    if OPENSSL is not None:
        with contextlib.suppress(MissingExtraError):
            Path("request.tsq").write_bytes(make_request(b"stamped", "request.tsq"))
            authority.answer("request.tsq", "response.tsr")
            stamp = Path("response.tsr").read_bytes()
            readers["time-stamp"] = Reader(stamp, lambda path: load_response(path, b"stamped"))
    return readers


def _weights(folder: Path) -> dict[str, Reader]:
    def each(opened: Callable[..., StoredWeights]) -> Callable[[Path], None]:
        def read(path: Path) -> None:
            with contextlib.closing(opened(path, name="weights")) as weights:
                for name, spec in list(weights.tensors.items())[:8]:
                    weights.read(name, slice(0, min(4, spec.shape[0] if spec.shape else 1)))

        return read

    arrays = {f"layers.{n}.weight": np.ones((6, 4), np.float32) for n in range(3)}
    (folder / "read").mkdir()
    (folder / "read" / "whole.safetensors").write_bytes(save(arrays))
    readers = {
        "safetensors": Reader(save(arrays), each(open_tensors), "weights.safetensors"),
        "index": Reader(
            json.dumps({"weight_map": dict.fromkeys(arrays, "whole.safetensors")}).encode(),
            each(open_tensors),
            "model.safetensors.index.json",
        ),
    }
    with contextlib.suppress(ImportError):
        import gguf
        from deepjudge_gguf.stored import open_gguf

        writer = gguf.GGUFWriter(folder / "whole.gguf", "llama")
        for name, array in arrays.items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        readers["gguf"] = Reader((folder / "whole.gguf").read_bytes(), each(open_gguf), "weights.gguf")
    with contextlib.suppress(ImportError):
        import onnx
        from deepjudge_onnx.stored import open_stored
        from onnx import helper, numpy_helper

        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in "xy"]
        held = [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")]
        model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], held))
        readers["onnx"] = Reader(model.SerializeToString(), each(open_stored), "weights.onnx")
    return readers


def _inputs(folder: Path) -> dict[str, Reader]:
    x, y = toys.make_inputs(toys.make_model(), n=12)
    np.savez_compressed(folder / "packed.npz", x=x, y=y)
    np.save(folder / "x.npy", x)
    return {
        "npz": Reader((folder / "in.npz").read_bytes(), load_inputs, "damaged.npz"),
        "packed-npz": Reader((folder / "packed.npz").read_bytes(), load_inputs, "damaged.npz"),
        "npy": Reader((folder / "x.npy").read_bytes(), partial(load_inputs, labels="victim"), "damaged.npy"),
    }
