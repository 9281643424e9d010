"""Secrets: named in a file, read from the environment or a keyring, and kept out of all that is shown or stored."""

import base64
import os
import re
from collections.abc import Iterable
from urllib.parse import quote

from deepjudge_core.errors import MissingExtraError, ModelError

_REFERENCE = re.compile(r"(?:env:(?P<name>[A-Za-z_]\w*)|keyring:(?P<service>[^/]+)/(?P<user>.+))")
_TELLING = 5  # characters of a secret that may be part of another text
_LEAST = 8  # characters of a secret that are looked for one by one


def is_reference(value: str) -> bool:
    """Whether a text names a secret."""
    return _REFERENCE.fullmatch(value) is not None


def resolve(name: str, value: str) -> str:
    """The secret that a text names.

    Args:
        name: The model's, for messages.
        value: ``env:NAME`` or ``keyring:SERVICE/USER``.

    Raises:
        MissingExtraError: Without what reads keyrings.
        ModelError: When there is none, naming the place and not the value.
    """
    match = _REFERENCE.fullmatch(value)
    if match is None:
        raise ModelError(f"{name}: expected env:NAME or keyring:SERVICE/USER, found another text", code="cannot-open")
    found = os.environ.get(match["name"]) if match["name"] else _of_keyring(name, match["service"], match["user"])
    if not found:
        raise ModelError(f"{name}: expected a secret at {value}, found none", code="cannot-open")
    if not (found.isascii() and found.isprintable()):
        raise ModelError(f"{name}: expected printable ASCII in the secret {value}, found another", code="cannot-open")
    return found


def _of_keyring(name: str, service: str, user: str) -> str | None:
    try:
        import keyring
    except ModuleNotFoundError:
        raise MissingExtraError(name, "keyring", "http") from None
    try:
        found: str | None = keyring.get_password(service, user)
        return found
    except Exception:  # of any kind: each system has another; what it says may hold anything
        raise ModelError(
            f"{name}: the keyring cannot be read; unlock it, or use env:NAME", code="cannot-open"
        ) from None


class Redactor:
    """Tells whether a text holds a part of a secret, in a usual spelling: who answers may repeat what it was told."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._parts = frozenset(part.lower() for secret in secrets for part in _parts(secret))

    def holds_secret(self, text: str) -> bool:
        """Whether any part of a secret stands in a text."""
        folded = "".join(text.split()).lower()
        return any(part in folded for part in self._parts)


def _parts(secret: str) -> Iterable[str]:
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    for form in {secret, secret[::-1], quote(secret, safe=""), encoded, secret.encode().hex()}:
        bare = "".join(form.split())
        if len(bare) <= _LEAST:
            yield bare
        else:
            yield from (bare[at : at + _TELLING] for at in range(len(bare) - _TELLING + 1))
