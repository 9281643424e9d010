"""JSON as typed values: what is refused, and that one clean line says where."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType

from deepjudge_core.files.documents import Count, Document, Json, Part, Sha256, Share, json_schema, parse, plain


class Inner(Document, frozen=True, kw_only=True):
    share: Share | None
    sort: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.sort == "b" and self.share is None:
            raise ValueError("share: expected a number where the sort is b, found null")


class Header(Part, frozen=True):
    size: Count


class Outer(Document, frozen=True, kw_only=True, tag_field="schema", tag="test/1"):
    number: int
    more: Inner | UnsetType = UNSET
    parts: Mapping[str, tuple[Inner, ...]]
    pair: tuple[float, bool] = (0.5, True)
    header: Header | None = None
    digest: Annotated[Sha256 | None, "said of it"] = None
    options: Json


VALUE: Mapping[str, Any] = {
    "schema": "test/1",
    "number": 10**39,
    "parts": {"x": [{"share": 1, "sort": "b"}, {"share": None}]},
    "options": {"any": [1, {"a": None}]},
}


def test_it_is_read_and_written() -> None:
    outer = parse(Outer, VALUE)
    assert (outer.number, outer.parts["x"][0], outer.more) == (10**39, Inner(share=1.0, sort="b"), UNSET)
    assert plain(parse(Outer, json.loads(json.dumps(plain(outer))))) == plain(outer)
    assert list(plain(outer)) == ["schema", "number", "parts", "pair", "header", "digest", "options"]
    # What a later version writes more into a header is passed over.
    assert parse(Outer, {**VALUE, "header": {"size": 1, "later": 2}}).header == Header(1)


@pytest.mark.parametrize(
    ("change", "where", "facts"),
    [
        ({"number": "1"}, "number", ("an integer", '"1"')),
        ({"number": True}, "number", ("true",)),
        ({"number": 1.0}, "number", ("1.0",)),
        ({"more": None}, "more", ("an object", "null")),
        ({"more": {}}, "more", ("'share'",)),
        ({"more": {"share": 2}}, "more.share", ("of at least 0 and of at most 1", "found 2")),
        ({"more": {"share": 1, "sort": "c"}}, "more.sort", ('"a" or "b"', '"c"')),
        ({"more": {"share": None, "sort": "b"}}, "more.share", ("a number", "null")),
        ({"parts": {"x": [], "y": {}}}, "parts.y", ("an array", "{}")),
        ({"parts": {"x": [{"share": 0}, {"share": 0, "z": 1}]}}, "parts.x[1]", ("'z'",)),
        ({"parts": {"x": [{"share": 0}, {"share": "\ud800"}]}}, "parts.x[1].share", ("or null", "ud800")),
        ({"pair": [1, True, 2]}, "pair", ("2 items",)),
        ({"pair": [1, 2]}, "pair[1]", ("a boolean", "2")),
        ({"header": {"size": -1}}, "header.size", ("of at least 0", "-1")),
        ({"digest": "A" * 64}, "digest", ("^[0-9a-f]{64}$",)),
        ({"digest": "a" * 4000}, "digest", ("...",)),
        ({"other": 1}, "the document", ("'other'",)),
    ],
)
def test_a_line_says_where(change: Mapping[str, Any], where: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(where)}: ") as caught:
        parse(Outer, {**VALUE, **change})
    line = str(caught.value)
    assert not [fact for fact in facts if fact not in line], line


def refusal(value: Any) -> str:
    """What is said of a value; nothing where it is read."""
    try:
        parse(Outer, value)
    except ValueError as error:
        return str(error)
    return ""


@given(st.text(max_size=20))
def test_whatever_keys_are_called_the_line_is_clean(name: str) -> None:
    for change in ({name: 1}, {"parts": {name: 1}}, {"parts": {"x": [{name: 1, "share": 1}]}}, {"more": {name: name}}):
        assert refusal({**VALUE, **change}).isprintable()


def test_the_schema_is_that_of_what_is_read() -> None:
    schema = json_schema(Outer, "a test")
    assert (schema["$id"], schema["title"]) == ("test/1", "a test")
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(VALUE)
    for change in ({"schema": "test/2"}, {"number": "1"}, {"more": None}, {"other": 1}, {"pair": [1]}):
        assert not validator.is_valid({**VALUE, **change})


def test_a_digest_is_all_of_its_line() -> None:
    class Digested(Part, frozen=True):
        digest: Sha256

    assert parse(Digested, {"digest": "a" * 64}).digest == "a" * 64
    for text in ("a" * 64 + "\n", "\n" + "a" * 64, "A" * 64, "a" * 63):
        with pytest.raises(ValueError, match="digest"):
            parse(Digested, {"digest": text})
