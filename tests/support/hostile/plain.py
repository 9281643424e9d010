"""What is refused before any framework sees it, made without any."""

import gzip
import io
import json
import os
import pickle
import socket
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from hostile.ground import Case, Place

HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(96)
RUNTIME = b"\x18\0\0\0ORTM" + bytes(64)
# The version, and a graph without anything in it.
ONNX = b"\x08\x08\x3a\x00"
WEIGHTS = safetensors.numpy.save({"dense.weight": np.ones((3, 4), np.float32)})


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def write(data: bytes) -> Callable[[Place], object]:
    return lambda place: place.path.write_bytes(data)


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def pickled(protocol: int) -> Callable[[Place], object]:
    return lambda place: place.path.write_bytes(pickle.dumps(Payload(place.marker), protocol))


def array_of_objects(place: Place) -> None:
    with place.path.open("wb") as file:
        np.save(file, np.array([Payload(place.marker)], dtype=object), allow_pickle=True)


def arrays_of_objects(place: Place) -> None:
    with place.path.open("wb") as file:
        np.savez(file, data=np.array([Payload(place.marker)], dtype=object), allow_pickle=True)


def joblib(place: Place) -> None:
    with gzip.open(place.path, "wb") as file:
        pickle.dump(Payload(place.marker), file)


def tarred(place: Place) -> None:
    with tarfile.open(place.path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Payload(place.marker), 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def packaged(place: Place) -> None:
    code = f"import os; os.mkdir({str(place.marker)!r})"
    entries = {"extern_modules": b"", "evil.py": code.encode(), "model.pkl": pickle.dumps(Payload(place.marker))}
    place.path.write_bytes(zipped({f"net/.data/{name}": data for name, data in entries.items()}))


def keras(**more: bytes) -> bytes:
    entries = {"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": HDF5}
    return zipped(entries | more)


def state(data: bytes = b"", compression: int = zipfile.ZIP_STORED) -> bytes:
    return zipped({"net/data.pkl": data or pickle.dumps({}, 2), "net/version": b"3\n"}, compression)


def quine(depth: int) -> bytes:
    """Archives in archives, each of which is many times larger than it looks."""
    data = bytes(2**20)
    for level in range(depth):
        data = zipped({f"net/{number}-{level}": data for number in range(10)}, zipfile.ZIP_DEFLATED)
    return data


def overlapping() -> bytes:
    """An archive whose entries are all the same bytes, once."""
    data = bytearray(zipped({"net/data.pkl": bytes(2**20)}, zipfile.ZIP_DEFLATED))
    end = data.rfind(b"PK\x05\x06")
    start = struct.unpack_from("<L", data, end + 16)[0]
    entry = bytes(data[start:end])
    many = b"".join(entry.replace(b"net/data.pkl", b"net/%08d" % number) for number in range(5000))
    return bytes(data[:start]) + many + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 5000, 5000, len(many), start, 0)


def sparse(place: Place) -> None:
    with place.path.open("wb") as file:
        file.write(ONNX)
        file.truncate(64 * 2**30)


def bound(place: Place) -> None:
    # A socket's path has a largest length, which temporary folders exceed.
    folder = os.open(place.path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{place.path.name}")
    os.close(folder)


def linked(place: Place) -> None:
    (place.path.parent / "other").write_bytes(ONNX)
    place.path.symlink_to("other")


def device(place: Place) -> None:
    try:
        os.mknod(place.path, 0o20644, os.makedev(1, 5))
        os.close(os.open(place.path, os.O_RDONLY | os.O_NONBLOCK))
    except PermissionError:
        place.path.unlink(missing_ok=True)
        place.path.symlink_to("/dev/zero")


def saved_model(change: Callable[[Path, Place], object]) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        (place.path / "variables").mkdir(parents=True)
        (place.path / "saved_model.pb").write_bytes(b"\x08\x01")
        change(place.path, place)

    return make


def hub_folder(change: Callable[[Path, Place], object] = lambda folder, place: None, **settings: Any) -> Any:
    """A folder of a classifier as transformers writes it, and something else in it."""

    def make(place: Place) -> None:
        place.path.mkdir()
        config = {"model_type": "vit", "architectures": ["ViTForImageClassification"]} | settings
        (place.path / "config.json").write_text(json.dumps(config))
        (place.path / "model.safetensors").write_bytes(WEIGHTS)
        change(place.path, place)

    return make


def own_code(folder: Path, place: Place) -> None:
    (folder / "modeling.py").write_text(f"import os; os.mkdir({str(place.marker)!r})")


def linked_weights(folder: Path, place: Place) -> None:
    place.canary.write_bytes(b"secret")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(place.canary)


def index(**files: str) -> Callable[[Place], object]:
    """An index of weights, of which some lie in these files."""
    return lambda place: place.path.write_text(json.dumps({"weight_map": files}))


def linked_variables(folder: Path, place: Place) -> None:
    place.canary.write_bytes(b"secret")
    (folder / "variables" / "variables.index").symlink_to(place.canary)


def hard_variables(folder: Path, place: Place) -> None:
    place.canary.write_bytes(b"secret")
    (folder / "variables" / "variables.index").hardlink_to(place.canary)


def deep(folder: Path, place: Place) -> None:
    (folder / "/".join(["assets"] * 12)).mkdir(parents=True)


def many(folder: Path, place: Place) -> None:
    (folder / "assets").mkdir()
    for number in range(1001):
        (folder / "assets" / str(number)).touch()


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31m"
ODD = f"a\nb{ESCAPES}\u202e\u2066<script>"
NOT_ONNX = "expected an ONNX model, found "
NOT_TORCH = "expected a state dict, TorchScript or a torch.export file, found "
NOT_KERAS = "expected a Keras model, found "
PICKLE = "a pickle, which can hold code"

FILES = {
    **{
        f"pickle of protocol {protocol}": Case("m.pt", pickled(protocol), "wrong-format", NOT_TORCH)
        for protocol in range(6)
    },
    "pickle called ONNX": Case("m.onnx", pickled(4), "wrong-format", f"{NOT_ONNX}{PICKLE}"),
    "pickle called Keras": Case("m.keras", pickled(4), "wrong-format", "a pickle"),
    "pickle called HDF5": Case("m.h5", pickled(2), "wrong-format", "a pickle"),
    "pickle called safetensors": Case("m.safetensors", pickled(2), "wrong-format", PICKLE),
    "array of objects": Case("m.pt", array_of_objects, "wrong-format", f"{NOT_TORCH}another format"),
    "arrays of objects": Case("m.pth", arrays_of_objects, "wrong-format", NOT_TORCH),
    "joblib": Case("m.pt", joblib, "wrong-format", f"{NOT_TORCH}a compressed file"),
    "pickle called a checkpoint": Case("m.ckpt", pickled(2), "wrong-format", f"{NOT_TORCH}{PICKLE}"),
    "pickle called weights": Case("pytorch_model.bin", pickled(4), "wrong-format", f"{NOT_TORCH}{PICKLE}"),
    "tar called a checkpoint": Case("m.pth.tar", tarred, "wrong-format", f"{NOT_TORCH}a tar archive"),
    "a pipe called weights": Case("m.bin", lambda place: os.mkfifo(place.path), "not-a-file", "found a pipe"),
    "tar": Case("m.pt", tarred, "wrong-format", f"{NOT_TORCH}a tar archive"),
    "torch.package": Case("m.pt", packaged, "wrong-format", "a torch.package file, which holds code"),
    "torch.package called a program": Case("m.pt2", packaged, "wrong-format", "which holds code"),
    "ONNX Runtime's format": Case("m.onnx", write(RUNTIME), "wrong-format", "own format (.ort); give the .onnx"),
    **{
        f"{kind} called {suffix}": Case(f"m{suffix}", write(data), "wrong-format", words)
        for suffix, words, kinds in (
            (".onnx", NOT_ONNX, ("HDF5", "Keras", "safetensors", "state dict", "text", "program", "nothing")),
            (".pt", NOT_TORCH, ("ONNX", "HDF5", "Keras", "text", "program", "nothing")),
            (".pt2", NOT_TORCH, ("ONNX", "HDF5", "Keras")),
            (".bin", NOT_TORCH, ("ONNX", "HDF5", "text", "nothing")),
            (".ckpt", NOT_TORCH, ("Keras", "nothing")),
            (".safetensors", "expected a safetensors file, found ", ("ONNX", "HDF5", "state dict")),
            (".keras", NOT_KERAS, ("ONNX", "HDF5", "safetensors", "state dict", "program", "nothing")),
            (".h5", NOT_KERAS, ("ONNX", "Keras", "safetensors", "state dict", "text", "nothing")),
        )
        for kind, data in {
            "ONNX": ONNX,
            "HDF5": HDF5,
            "Keras": keras(),
            "safetensors": WEIGHTS,
            "state dict": state(),
            "text": b"import os\n",
            "program": b"\x7fELF\2\1\1" + bytes(64),
            "nothing": bytes(512),
        }.items()
        if kind in kinds
    },
    **{
        f"empty {suffix}": Case(f"m{suffix}", write(b""), "wrong-format", "found an empty file")
        for suffix in (".onnx", ".pt", ".safetensors", ".keras")
    },
    "truncated ONNX": Case("m.onnx", write(ONNX[:3]), "wrong-format", "a truncated file"),
    "truncated archive": Case("m.pt", write(state()[:-9]), "wrong-format", "found a truncated one"),
    "truncated Keras": Case("m.keras", write(keras()[:-9]), "wrong-format", "a truncated zip archive, or another file"),
    "long header": Case("m.safetensors", write(header(b"{" + bytes(64), 2**62)), "wrong-format", "another format"),
    "bomb in a state dict": Case(
        "m.pt", write(state(bytes(2**27), zipfile.ZIP_DEFLATED)), "wrong-format", "torch.save never compresses"
    ),
    "bomb in Keras": Case(
        "m.keras",
        write(zipped({"config.json": bytes(2**27), "model.weights.h5": HDF5}, zipfile.ZIP_DEFLATED)),
        "wrong-format",
        "bytes expand to 134217728",
    ),
    "archives in archives": Case("m.pt", write(quine(4)), "wrong-format", NOT_TORCH),
    "overlapping entries": Case("m.pt", write(overlapping()), "wrong-format", NOT_TORCH),
    "entry that leads out": Case("m.pt", write(zipped({"net/../../../x": b""})), "wrong-format", "an entry outside it"),
    "module in a Keras archive": Case("m.keras", write(keras(**{"json.py": b"1"})), "wrong-format", "unexpected entry"),
    "two archives": Case("m.pt", write(state() + state()), "wrong-format", "other data before or after it"),
    "too large": Case("m.onnx", sparse, "too-large", "expected at most 1024 MiB, found 65536 or more"),
    "pipe": Case("m.onnx", lambda place: os.mkfifo(place.path), "not-a-file", "found a pipe"),
    "socket": Case("m.pt", bound, "not-a-file", "found a socket"),
    "device": Case("m.keras", device, "not-a-file", "expected a regular file, found a"),
    "folder": Case("m.onnx", lambda place: place.path.mkdir(), "wrong-format", "a"),
    "folder of weights": Case("m.pt", lambda place: place.path.mkdir(), "wrong-format", "a"),
    "link": Case("m.onnx", linked, "not-a-file", "found a symbolic link; name the"),
    "link to a device": Case("m.pt", lambda place: place.path.symlink_to("/dev/zero"), "not-a-file", "a symbolic link"),
    "link to nothing": Case("m.pt", lambda place: place.path.symlink_to("nothing"), "cannot-read", ""),
    "link to itself": Case("m.pt", lambda place: place.path.symlink_to(place.path), "cannot-read", ""),
    "a device by its name": Case("/dev/zero", lambda place: None, "", "no installed adapter reads it"),
    "escapes in the name": Case(f"{ESCAPES}.onnx", write(b"GIF89a" + bytes(99)), "wrong-format", "another format"),
    "lines in the name": Case("a\nfailed: b\r.pt", write(b"GIF89a" + bytes(99)), "wrong-format", "another format"),
    "a name that turns": Case("\u202etp.xnno\u2066.onnx", write(b"GIF89a" + bytes(99)), "wrong-format", "another"),
    "a name of markup": Case(
        "[red]<b>&x[.keras", write(b"GIF89a" + bytes(99)), "wrong-format", "truncated zip archive"
    ),
    "a name that is no text": Case("\udcff\udc9b.onnx", write(b"GIF89a" + bytes(99)), "wrong-format", "another"),
    "code of its own in a folder": Case(
        "m", hub_folder(own_code, auto_map={"AutoModel": "modeling.Net"}), "wrong-format", "found its own code"
    ),
    "code of its own in a part of a folder": Case(
        "m",
        hub_folder(own_code, vision_config={"auto_map": {"AutoConfig": "o/r--modeling.Net"}}),
        "wrong-format",
        "code",
    ),
    "operations from elsewhere in a folder": Case(
        "m", hub_folder(kernel_config={"Linear": "o/r"}), "wrong-format", "its own operations"
    ),
    "another model in a folder": Case(
        "m", hub_folder(backbone="/etc/model", use_pretrained_backbone=True), "wrong-format", "another model"
    ),
    "a huge folder": Case("m", hub_folder(num_hidden_layers=10**12), "wrong-format", "'num_hidden_layers'"),
    "a folder without its kind": Case("m", hub_folder(model_type=3), "wrong-format", "no model_type"),
    "a folder of arrays without end": Case(
        "m",
        hub_folder(lambda folder, place: (folder / "config.json").write_text("[" * 10**6)),
        "wrong-format",
        "config.json",
    ),
    "linked weights in a folder": Case("m", hub_folder(linked_weights), "not-a-file", "found a symbolic link"),
    "an index that leads out": Case(
        "model.safetensors.index.json", index(x="../../secret/canary.safetensors"), "wrong-format", "'../../secret"
    ),
    "an index of a whole path": Case("model.safetensors.index.json", index(x="/etc/passwd"), "wrong-format", "'/etc/"),
    "an index of pickles": Case("model.safetensors.index.json", index(x="x.pkl"), "wrong-format", "'x.pkl'"),
    "an index of many files": Case(
        "model.safetensors.index.json",
        index(**{f"x{number}": f"{number}.safetensors" for number in range(2000)}),
        "wrong-format",
        "found 2000",
    ),
    "an index of nothing": Case("pytorch_model.bin.index.json", write(b"{}"), "wrong-format", "weight_map"),
    "a truncated index": Case("pytorch_model.bin.index.json", write(b'{"weight_map": {'), "wrong-format", "index"),
    "a pipe in a SavedModel": Case(
        "m", saved_model(lambda folder, place: os.mkfifo(folder / "variables" / "x")), "not-a-file", "found a pipe"
    ),
    "a link in a SavedModel": Case("m", saved_model(linked_variables), "not-a-file", "found a symbolic link"),
    "a hard link in a SavedModel": Case("m", saved_model(hard_variables), "not-a-file", "found a hard link"),
    "a deep SavedModel": Case(
        "m", saved_model(deep), "too-large", "found one with more than 1000 files, or nested more than 8 deep"
    ),
    "a SavedModel of many files": Case("m", saved_model(many), "too-large", "found one with more than 1000 files"),
    "a module in a SavedModel": Case(
        "m", saved_model(lambda folder, place: (folder / "json.py").touch()), "wrong-format", "also holds 'json.py'"
    ),
}
