"""Tokens, as the files beside a language model list them. Only strings and numbers are read, by no tokenizer."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from deepjudge_core.errors import ModelError
from deepjudge_core.files.documents import Part
from deepjudge_core.files.reading import open_regular
from deepjudge_core.text import clean

_TOKENIZER, _TABLE, _ADDED, _LIST = "tokenizer.json", "vocab.json", "added_tokens.json", "vocab.txt"
VOCABULARIES = (_TOKENIZER, _TABLE, _ADDED, _LIST)
"""The files that may say it."""
_LARGEST = 2**26  # bytes; the largest known are half of that
# Of tokens, each of which takes some 200 bytes of memory; and of lists, such as a token with its score.
MOST_TOKENS = 2**20
"""Of one vocabulary; the largest known has a quarter of these."""
_MOST_LISTS = 2**21
_T = TypeVar("_T")


class _Added(Part, frozen=True):
    id: int
    content: str


class _Model(Part, frozen=True):
    vocab: dict[str, int] | list[tuple[str, float]] = {}  # noqa: RUF012  # msgspec copies it


class _Tokenizer(Part, frozen=True):
    model: _Model = _Model()
    added_tokens: tuple[_Added, ...] = ()


def read_tokens(folder: Path, name: str) -> tuple[str, ...] | None:
    """The vocabulary by the tokens' numbers, with empty strings for numbers without a token; None where there is none.

    Args:
        folder: Of the model: ``tokenizer.json``, ``vocab.json`` or ``vocab.txt`` is looked for, in this order.
        name: What messages call it.

    Raises:
        ModelError: When the file is damaged, or lists more tokens than any vocabulary has.
    """
    if (folder / _TOKENIZER).is_file():
        tokenizer = _decoded(folder / _TOKENIZER, name, _Tokenizer)
        vocabulary = tokenizer.model.vocab
        if isinstance(vocabulary, list):
            vocabulary = {token: place for place, (token, _) in enumerate(vocabulary)}
        pairs = [*vocabulary.items(), *((one.content, one.id) for one in tokenizer.added_tokens)]
        return _by_number(pairs, f"{name}: {_TOKENIZER}") if pairs else None
    if (folder / _TABLE).is_file():
        tables = [
            _decoded(folder / file, name, dict[str, int]) for file in (_TABLE, _ADDED) if (folder / file).is_file()
        ]
        return _by_number((pair for table in tables for pair in table.items()), f"{name}: {_TABLE}")
    if (folder / _LIST).is_file():
        text = _text(folder / _LIST, name)
        if text.count(b"\n") > MOST_TOKENS:
            raise _too_many(f"{name}: {_LIST}")
        return tuple(line.decode("utf-8", "replace").rstrip("\r") for line in text.removesuffix(b"\n").split(b"\n"))
    return None


def _decoded(path: Path, name: str, kind: type[_T]) -> _T:
    text = _text(path, name)
    # Of what is not asked for, nothing is kept; of the rest, each token stands before a colon or in a list.
    if text.count(b'":') > MOST_TOKENS or text.count(b"[") > _MOST_LISTS:
        raise _too_many(f"{name}: {path.name}")
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{name}: expected a list of tokens in {path.name}, found another file: {clean(str(error))}",
        ) from error


def _text(path: Path, name: str) -> bytes:
    with open_regular(path, f"the tokens of {name}", _LARGEST, ModelError) as file:
        return file.read(_LARGEST)


def _by_number(pairs: Iterable[tuple[str, int]], name: str) -> tuple[str, ...]:
    numbered: Mapping[int, str] = {number: token for token, number in pairs}
    if not all(0 <= number < 2 * MOST_TOKENS for number in numbered):
        raise _too_many(name)
    return tuple(numbered.get(number, "") for number in range(max(numbered, default=-1) + 1))


def _too_many(name: str) -> ModelError:
    return ModelError(f"{name}: expected a vocabulary of at most {MOST_TOKENS} tokens, found more")
