"""What stands in a JSON document, however deep. No torch."""

from collections.abc import Iterator
from typing import Any


def entries(value: Any) -> Iterator[tuple[str, Any]]:
    """The keys of all objects in a document, with their values, and all that stands in lists, under an empty key.

    It does not call itself: a file could be so deep that Python gives up.
    """
    stack = [value]
    while stack:
        current = stack.pop()
        if isinstance(current, dict):
            yield from current.items()
            stack.extend(current.values())
        elif isinstance(current, list):
            yield from (("", part) for part in current)
            stack.extend(current)
