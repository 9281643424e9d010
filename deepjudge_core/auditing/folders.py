"""Folders and globs: which of their files are models, and why each other one is left alone."""

import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from deepjudge_core.components.registry import Adapters
from deepjudge_core.errors import FileFormatError, ModelError
from deepjudge_core.files import storage
from deepjudge_core.files.reading import NO_LIMIT, open_regular

SkipCode = Literal[
    "archive",
    "behind-an-api",
    "cannot-read",
    "hidden",
    "link",
    "not-a-file",
    "other-inputs",
    "own-file",
    "part-of-model",
    "pickle",
    "sub-folder",
    "unknown-format",
]
SKIPPED: Mapping[SkipCode, str] = {
    "pickle": "pickles, which are never opened",
    "archive": "archives, which must be unpacked first",
    "behind-an-api": "files that describe a model behind an API, which you must name",
    "sub-folder": "sub-folders, which --recursive searches",
    "hidden": "hidden files and folders",
    "link": "links, which are not followed",
    "not-a-file": "pipes, sockets and devices",
    "cannot-read": "files and folders that cannot be read",
    "part-of-model": "files that hold another model's weights",
    "own-file": "deepjudge's own files",
    "other-inputs": "models that take other inputs than the suite's",
    "unknown-format": "files that no installed adapter reads",
}
"""Why a file is skipped, in the words of the line that lists such files."""
_NO_MODELS = frozenset[SkipCode]({"not-a-file", "own-file", "part-of-model", "unknown-format"})
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_WEIGHTS = (".safetensors", ".bin")  # of models in several files, as a rule
_PEEK, _DEEPEST = 10_000, 64  # files of a sub-folder that is only told of, and folders within one another


@dataclass(frozen=True)
class Skipped:
    """A file of a folder or glob that is not taken as a model.

    Attributes:
        name: Its path.
        code: Why.
        reason: Why, in words.
        unjudged: Whether it may hold a model all the same, of which nothing is said then.
    """

    name: str
    code: SkipCode
    reason: str
    unjudged: bool


@dataclass(frozen=True)
class Found:
    """What names stand for.

    Attributes:
        models: Paths of models, in the order given; those of a folder or glob sorted.
        skipped: What else was there.
    """

    models: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def __add__(self, other: "Found") -> "Found":
        return Found((*self.models, *other.models), (*self.skipped, *other.skipped))


def look_into(folder: Path, adapters: Adapters, *, recursive: bool = False) -> Found:
    """The models in a folder, and what else is there.

    A folder that is itself a model is one. Links to folders are not followed. A file that holds the weights of another
    one in the same folder belongs to that.

    Args:
        folder: The folder.
        adapters: What reads models.
        recursive: Whether sub-folders are looked into.

    Raises:
        ModelError: When it cannot be listed.
    """
    try:
        return _Look(adapters, recursive).into(folder, 0)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be listed: {error.strerror}", code="not-a-file") from None


def look_at(paths: Iterable[Path], adapters: Adapters, *, recursive: bool = False) -> Found:
    """The models among the matches of a glob, and what else matches; see :func:`look_into`."""
    return _Look(adapters, recursive).at(sorted(paths), 0, claims=False)


class _TooManyError(Exception):
    pass


class _Look:
    def __init__(self, adapters: Adapters, recursive: bool, most: float = math.inf) -> None:
        self.adapters, self.recursive, self.most = adapters, recursive, most

    def into(self, folder: Path, depth: int) -> Found:
        paths = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self.most -= 1
                if self.most < 0:
                    raise _TooManyError
                paths.append(folder / entry.name)
        return self.at(sorted(paths), depth, claims=True)

    def at(self, paths: Iterable[Path], depth: int, *, claims: bool) -> Found:
        rest = list(paths)
        models = {path for path in rest if not _is_hidden(path) and self.adapters.reads(path)}
        owners = self.adapters.parts(sorted(models)) if claims else {}
        # Whoever claims another model as weights may mean to hide it: only what looks like weights alone is believed.
        named = {path.name for path in models}
        owners = {n: owner for n, owner in owners.items() if n not in named or n.lower().endswith(_WEIGHTS)}
        found = []
        for path in rest:
            if path in models and path.name not in owners:
                found.append(Found((str(path),)))
            elif path in models:  # what could be judged by itself
                owner = owners[path.name]
                # An index is opened with all of its files; any other model may name what is somebody else's.
                unjudged = owner.suffix.lower() != ".json"
                found.append(_skip(path, "part-of-model", f"holds the weights of {owner.name}", unjudged=unjudged))
            elif path.name not in owners or _is_hidden(path):
                found.append(self._other(path, depth))
        return Found(
            tuple(chain.from_iterable(one.models for one in found)),
            tuple(chain.from_iterable(one.skipped for one in found)),
        )

    def _other(self, path: Path, depth: int) -> Found:
        if _is_hidden(path):
            return _skip(path, "hidden", "a hidden file or folder", unjudged=self.adapters.reads(path))
        if path.is_symlink():
            return _skip(path, "link", "a link, which is not followed", unjudged=path.exists())
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                return self._folder(path, depth)
            if not stat.S_ISREG(mode):
                return _skip(path, "not-a-file", "a pipe, a socket or a device")
            return _skip(path, *self._what(path))
        except OSError as error:
            return _skip(path, "cannot-read", f"cannot be read: {error.strerror}")
        except FileFormatError as error:
            return _skip(path, "cannot-read", str(error).removeprefix(f"{path}: "))

    def _folder(self, path: Path, depth: int) -> Found:
        if depth >= _DEEPEST:
            return _skip(path, "sub-folder", f"folders nested more than {_DEEPEST} deep")
        if self.recursive:
            return self.into(path, depth + 1)
        try:
            inside = _Look(self.adapters, True, _PEEK).into(path, depth + 1)
        except _TooManyError:
            return _skip(path, "sub-folder", f"a sub-folder with more than {_PEEK} files")
        models = len(inside.models)
        holds = f"holds {models} model{'s' * (models != 1)}" if models else "holds no model"
        unjudged = models > 0 or any(one.unjudged for one in inside.skipped)
        return _skip(path, "sub-folder", f"a sub-folder that {holds}", unjudged=unjudged)

    def _what(self, path: Path) -> tuple[SkipCode, str]:
        suffix = path.suffix.lower()
        if self.adapters.is_remote(path):
            return "behind-an-api", "describes a model behind an API; name it, if you trust its author"
        with open_regular(path, "a file", NO_LIMIT) as file:
            start = file.read(2)
        # Protocols 2 to 5; what is older begins with letters.
        if suffix in _PICKLES or (start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")):
            return "pickle", "a pickle, which is never opened; get the model in another format"
        if suffix in _ARCHIVES:
            return "archive", "an archive; unpack it"
        if storage.is_own(path) or storage.is_own_text(path):
            return "own-file", "one of deepjudge's own files"
        ending = f"ends with {suffix}" if suffix else "has no suffix"
        return "unknown-format", f"no installed adapter reads a file whose name {ending}"


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _skip(path: Path, code: SkipCode, reason: str, *, unjudged: bool | None = None) -> Found:
    may_be = code not in _NO_MODELS if unjudged is None else unjudged
    return Found(skipped=(Skipped(str(path), code, reason, may_be),))


def by_code(skipped: Iterable[Skipped]) -> Iterator[tuple[SkipCode, list[Skipped]]]:
    """What was skipped, by the reason, in the order of :data:`SKIPPED`."""
    everything = list(skipped)
    for code in SKIPPED:
        some = [one for one in everything if one.code == code]
        if some:
            yield code, some
