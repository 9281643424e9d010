"""Statements about files, in the form of in-toto attestations (https://in-toto.io/Statement/v1)."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepjudge_core.files.reading import NO_LIMIT, open_regular, parse_json

_TYPE = "https://in-toto.io/Statement/v1"
_SEAL = "sha256"  # of the predicate: of all else in the statement
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
    predicate: Mapping[str, Any]

    def dump(self) -> bytes:
        """The statement as it stands in a file, with its own digest in it; equal statements give equal bytes."""
        return dump_json(self._values(hashlib.sha256(dump_json(self._values(None))).hexdigest()))

    def _values(self, seal: str | None) -> dict[str, Any]:
        sealed = {} if seal is None else {_SEAL: seal}
        return {
            "_type": _TYPE,
            "subject": [
                {"name": file.name, "digest": {"sha256": file.sha256}, "annotations": {"size": file.size}}
                for file in self.files
            ],
            "predicateType": self.kind,
            "predicate": {**self.predicate, **sealed},
        }

    @classmethod
    def parse(cls, data: bytes, kind: str) -> "Statement":
        """The inverse of :meth:`dump`: no other bytes are taken.

        Raises:
            ValueError: Saying what is wrong.
        """
        value = parse_json(data)
        if not isinstance(value, dict) or value.get("_type") != _TYPE or value.get("predicateType") != kind:
            raise ValueError(f"expected an in-toto statement {kind}, found other JSON")
        try:
            predicate = dict(value["predicate"])
            seal = predicate.pop(_SEAL)
            files = tuple(
                File(str(subject["name"]), str(subject["digest"]["sha256"]), int(subject["annotations"]["size"]))
                for subject in value["subject"]
            )
        except (LookupError, TypeError, ValueError):
            raise ValueError(f"expected an in-toto statement {kind}, found a damaged one") from None
        if not all(_SHA256.fullmatch(file.sha256) and file.size >= 0 for file in files):
            raise ValueError("a file in it has no SHA-256, or no size")
        if len({file.name for file in files}) < len(files):
            raise ValueError("a file stands in it twice")
        found = cls(kind, files, predicate)
        if found.dump() != data:
            own = hashlib.sha256(dump_json(found._values(None))).hexdigest()
            why = "its SHA-256 does not agree" if own != seal else "it is not written as deepjudge writes it"
            raise ValueError(f"was changed after it was written ({why})")
        return found


def dump_json(value: Any) -> bytes:
    """JSON for people to read; equal values give equal bytes."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")
