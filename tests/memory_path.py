"""A file that is in memory, as a sandbox without a file system hands it to adapters."""

import io
from pathlib import Path
from typing import Any


class MemoryPath(type(Path())):
    """A path of no file, with the bytes of one."""

    data = b""

    def with_data(self, data: bytes) -> "MemoryPath":
        self.data = data
        return self

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        assert mode == "rb"
        return io.BytesIO(self.data)

    def read_bytes(self) -> bytes:
        return self.data
