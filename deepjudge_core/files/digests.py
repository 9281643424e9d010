"""What says which model was audited: SHA-256 of all of its files together, and of each."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deepjudge_core.text import is_utf8

FileKey = tuple[int, int]
"""What tells files on this system apart, whatever they are called: device and number."""
ITSELF = "."
"""The name of a file that is the whole model, as OpenSSF Model Signing has it."""
BASE = "base"
"""The folder, or the file, of another model whose weights a model changes, such as the base of a LoRA."""
# What OpenSSF Model Signing leaves out by default: what belongs to a repository and not to the model.
_IGNORED = (".git", ".gitattributes", ".github", ".gitignore")
_CHUNK = 2**20
_ITS_OWN = ""  # name of a file in its digest, since it may be called anything


def _never() -> bool:
    return False


@dataclass(frozen=True)
class FileDigests:
    """What is known of a model's files.

    Attributes:
        digest: SHA-256, in hex, of all of them: of a single file's bytes.
        files: Of each its SHA-256, in hex, by its name in the model's folder; of a single file by :data:`ITSELF`. Those
            of its base, if it has one, as if they were in its folder :data:`BASE`.
    """

    digest: str
    files: Mapping[str, str]

    def with_base(self, base: "FileDigests") -> "FileDigests":
        """Of a model that changes another one: on another base it is another model."""
        digest = hashlib.sha256(bytes.fromhex(self.digest) + bytes.fromhex(base.digest)).hexdigest()
        theirs = {BASE if name == ITSELF else f"{BASE}/{name}": content for name, content in base.files.items()}
        return FileDigests(digest, {**self.files, **theirs})


def of_file(path: Path, beside: Iterable[Path] = (), stopped: Callable[[], bool] = _never) -> FileDigests:
    """Of a file, and of others that hold its weights: then of the sizes and contents of all, and the others' names.

    What the file itself is called makes no difference. Without the sizes, one file could have the digest of several:
    their bytes and names behind one another.

    Args:
        path: The file.
        beside: The others.
        stopped: Asked from time to time whether nobody waits for it any more.

    Raises:
        OSError: When one cannot be read, or nobody waits.
    """
    others = sorted(beside)
    if not others:
        sha256 = _sha256(path, stopped).hexdigest()
        return FileDigests(sha256, {ITSELF: sha256})
    found = _of_all({_ITS_OWN: path, **{other.name: other for other in others}}, stopped)
    names = {path.name if name == _ITS_OWN else name: digest for name, digest in found.files.items()}
    return FileDigests(found.digest, names)


def of_folder(path: Path, stopped: Callable[[], bool] = _never) -> FileDigests:
    """Of the names, sizes and contents of all files in a folder.

    Args:
        path: The folder.
        stopped: Asked from time to time whether nobody waits for it any more.

    Raises:
        OSError: When one cannot be read, or nobody waits.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return _of_all({file.relative_to(path).as_posix(): file for file in files}, stopped)


def _of_all(files: Mapping[str, Path], stopped: Callable[[], bool]) -> FileDigests:
    digest, contents = hashlib.sha256(), {}
    for name, file in files.items():
        content = _sha256(file, stopped).digest()
        digest.update(_encoded(name) + f"\0{file.stat().st_size}\0".encode())
        digest.update(content)
        contents[name] = content.hex()
    return FileDigests(digest.hexdigest(), contents)


def file_key(path: Path) -> FileKey | None:
    """Of the file that a name leads to; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def root(files: Mapping[str, str]) -> str:
    """What a signature of OpenSSF Model Signing 1.0 says of a model with these files: the digest of its subject.

    SHA-256, in hex, of the files' SHA-256 behind one another, in the order of their paths, folder by folder; without
    what belongs to a repository (https://github.com/sigstore/model-transparency, with its defaults).
    """
    ordered = sorted((PurePosixPath(name), sha256) for name, sha256 in files.items())
    signed = [sha256 for path, sha256 in ordered if not path.parts or path.parts[0] not in _IGNORED]
    return hashlib.sha256(bytes.fromhex("".join(signed))).hexdigest()


def _encoded(name: str) -> bytes:
    if not is_utf8(name):
        raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ), ascii(name))
    return name.encode()


def _sha256(path: Path, stopped: Callable[[], bool]) -> "hashlib._Hash":
    digest, buffer = hashlib.sha256(), bytearray(_CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if stopped():
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            digest.update(view[:count])
    return digest
