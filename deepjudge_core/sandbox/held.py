"""A file whose bytes were read while files could still be opened."""

import io
from pathlib import Path
from typing import Any, BinaryIO


class HeldPath(type(Path())):  # type: ignore[misc]
    """A path that gives the bytes that it was made with, and opens nothing."""

    __slots__ = ("_held",)

    @classmethod
    def holding(cls, path: str | Path, data: bytes) -> "HeldPath":
        """A path with the bytes of its file."""
        held: HeldPath = cls(path)
        held._held = data
        return held

    def open(self, mode: str = "r", *_: Any, **__: Any) -> BinaryIO:
        """Its bytes as an open file; ``mode`` has to be "rb"."""
        if mode != "rb":
            raise PermissionError(f"expected the mode 'rb', found {mode!r}")
        return io.BytesIO(self._held)

    def read_bytes(self) -> bytes:
        """Its bytes."""
        held: bytes = self._held
        return held
