"""A file whose bytes were read while files could still be opened."""

import io
from pathlib import Path
from typing import Any, BinaryIO


class HeldPath(type(Path())):  # type: ignore[misc]
    """A path that gives the bytes that it held when it was made, and opens nothing."""

    __slots__ = ("_held",)

    @classmethod
    def of(cls, path: Path) -> "HeldPath":
        """Read a file."""
        held: HeldPath = cls(path)
        held._held = path.read_bytes()
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
