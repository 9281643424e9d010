"""Statements about files, in the form of in-toto attestations (https://in-toto.io/Statement/v1)."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepjudge_core.files.documents import Count, Document, Json, Sha256, parse, plain
from deepjudge_core.files.reading import NO_LIMIT, open_regular, parse_json

_TYPE = "https://in-toto.io/Statement/v1"
_SEAL = "sha256"  # of the predicate: of all else in the statement


@dataclass(frozen=True)
class File:
    """A file that a statement is about: its name, the SHA-256 of its bytes, in hex, and how many these are."""

    name: str
    sha256: str
    size: int

    @classmethod
    def of(cls, path: Path, name: str, largest: int = NO_LIMIT) -> "File":
        """A file as it is now.

        Args:
            path: Where it is.
            name: What it is called in the statement.
            largest: Bytes that it may have.

        Raises:
            FileFormatError: When it is none that can be read.
        """
        with open_regular(path, "a file", largest) as file:
            size = os.fstat(file.fileno()).st_size
            return cls(name, hashlib.file_digest(file, "sha256").hexdigest(), size)

    @classmethod
    def of_bytes(cls, data: bytes, name: str) -> "File":
        """A file with this content."""
        return cls(name, hashlib.sha256(data).hexdigest(), len(data))


class _Digest(Document, frozen=True):
    sha256: Sha256


class _Annotations(Document, frozen=True):
    size: Count


class _Subject(Document, frozen=True):
    name: str
    digest: _Digest
    annotations: _Annotations


class _InToto(Document, frozen=True, rename={"type": "_type", "kind": "predicateType"}):
    # A statement as it stands in a file.
    type: str
    subject: tuple[_Subject, ...]
    kind: str
    predicate: Json


@dataclass(frozen=True)
class Statement:
    """What is said of files.

    Attributes:
        kind: URI that says what the predicate means.
        files: The files, each with a name of its own.
        predicate: JSON values.
    """

    kind: str
    files: tuple[File, ...]
    predicate: Json

    def dump(self) -> bytes:
        """The statement as it stands in a file, with its own digest in it; equal statements give equal bytes."""
        return self._bytes({**self.predicate, _SEAL: self._seal()})

    def _seal(self) -> str:
        return hashlib.sha256(self._bytes(self.predicate)).hexdigest()

    def _bytes(self, predicate: Json) -> bytes:
        subject = tuple(_Subject(f.name, _Digest(f.sha256), _Annotations(f.size)) for f in self.files)
        return dump_json(plain(_InToto(_TYPE, subject, self.kind, predicate)))

    @classmethod
    def parse(cls, data: bytes, kind: str) -> "Statement":
        """The inverse of :meth:`dump`: no other bytes are taken.

        Raises:
            ValueError: Saying what is wrong.
        """
        value = parse_json(data)
        if not isinstance(value, dict) or value.get("_type") != _TYPE or value.get("predicateType") != kind:
            raise ValueError(f"expected an in-toto statement {kind}, found other JSON")
        stated = parse(_InToto, value)
        files = tuple(File(part.name, part.digest.sha256, part.annotations.size) for part in stated.subject)
        if len({file.name for file in files}) < len(files):
            raise ValueError("it lists a file twice")
        statement = cls(kind, files, {key: part for key, part in stated.predicate.items() if key != _SEAL})
        if statement.dump() != data:
            own = statement._seal() == stated.predicate.get(_SEAL)
            why = "deepjudge writes it in another form" if own else "its SHA-256 does not match"
            raise ValueError(f"was changed after it was written ({why})")
        return statement


def dump_json(value: Any) -> bytes:
    """JSON for people to read; equal values give equal bytes."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")
