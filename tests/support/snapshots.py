"""Folders that take long to fill and that many tests begin with: filled once, copied from then on."""

import shutil
from collections.abc import Callable
from pathlib import Path


class Snapshots:
    """What folders held when they had been filled, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fill(self, name: str, folder: Path, make: Callable[[], None]) -> None:
        """Fill a folder.

        Args:
            name: What the folder's content is called.
            folder: A folder that holds the same at each call.
            make: Fills it. It is called the first time only, and must do the same wherever the folder is.
        """
        taken = self._folder / name
        if taken.exists():
            shutil.copytree(taken, folder, symlinks=True, dirs_exist_ok=True)
        else:
            make()
            shutil.copytree(folder, taken, symlinks=True)
