"""Signatures: Ed25519, by the library ``cryptography``, in DSSE envelopes (github.com/secure-systems-lab/dsse)."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepjudge_core.bundles.statement import dump_json
from deepjudge_core.errors import MissingExtraError, UsageError
from deepjudge_core.files.documents import Document, parse, plain
from deepjudge_core.files.reading import open_regular, parse_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_LARGEST_KEY = 2**16  # bytes


@dataclass(frozen=True, eq=False)
class Signer:
    """Who signs.

    Attributes:
        public: The public key, 32 bytes in hex.
        sign: Gives the signature, 64 bytes, of some bytes.
    """

    public: str
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Signed:
    """What stands in an envelope whose signature is that of the key it names.

    Attributes:
        payload: What was signed.
        key: The public key, 32 bytes in hex.
    """

    payload: bytes
    key: str


def load_signer(path: Path) -> Signer:
    """The key in a PEM file (PKCS #8, without a password).

    Raises:
        UsageError: When it cannot be read, or there is none in it.
        MissingExtraError: Without the library.
    """
    serialization, ed25519 = _library(path)
    data = _read(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except Exception:  # the library's, of many kinds
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(
            f"{path}: expected an Ed25519 private key in PEM without a password, as written by "
            "'openssl genpkey -algorithm ed25519', found another file",
            code="wrong-value",
        )
    return Signer(key.public_key().public_bytes_raw().hex(), key.sign)


def load_public_key(path: Path) -> str:
    """The public key in a PEM file, 32 bytes in hex.

    Raises:
        UsageError: When it cannot be read, or there is none in it.
        MissingExtraError: Without the library.
    """
    serialization, ed25519 = _library(path)
    data = _read(path)
    try:
        key = serialization.load_pem_public_key(data)
    except Exception:
        key = None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(
            f"{path}: expected an Ed25519 public key in PEM, as written by 'openssl pkey -pubout', found another file",
            code="wrong-value",
        )
    return str(key.public_bytes_raw().hex())


def sign(payload: bytes, signer: Signer) -> bytes:
    """An envelope with a payload and its signature, as it stands in a file; it names the public key."""
    return _dump(payload, signer.public, signer.sign(encode(payload)))


def open_envelope(data: bytes, source: object) -> Signed:
    """What is in an envelope, after a look at the signature.

    It is checked against the key that the envelope names, so that any change shows. Whose key that is it cannot say.

    Args:
        data: The envelope, as :func:`sign` made it: no other bytes are taken.
        source: What messages call it.

    Raises:
        ValueError: Saying what is wrong.
        MissingExtraError: Without the library.
    """
    try:
        envelope = parse(_Envelope, parse_json(data))
        [signature] = envelope.signatures
        key, payload, signed = signature.keyid, _decode(envelope.payload), _decode(signature.sig)
        raw = bytes.fromhex(key)
    except ValueError:
        raise ValueError("expected a DSSE envelope with one signature, found another file") from None
    # One text for one envelope: base64 and JSON have several.
    if _dump(payload, key, signed) != data:
        raise ValueError("was changed after it was written (deepjudge writes it in another form)")
    _, ed25519 = _library(source)
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(signed, encode(payload))
    except Exception:  # of the library: a key that is none, or a signature that is not its
        raise ValueError("the signature does not match the signed content and the key named with it") from None
    return Signed(payload, key)


def encode(payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """What is signed of a payload: DSSE's pre-authentication encoding, which holds the payload's type as well."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


class _Signature(Document, frozen=True):
    keyid: str
    sig: str


class _Envelope(Document, frozen=True, rename="camel"):
    payload_type: str
    payload: str
    signatures: tuple[_Signature, ...]


def _dump(payload: bytes, key: str, signed: bytes) -> bytes:
    signature = _Signature(key, base64.b64encode(signed).decode())
    return dump_json(plain(_Envelope(PAYLOAD_TYPE, base64.b64encode(payload).decode(), (signature,))))


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _read(path: Path) -> bytes:
    with open_regular(path, "a key", _LARGEST_KEY, UsageError) as file:
        return file.read(_LARGEST_KEY)


def _library(source: object) -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingExtraError(str(source), "cryptography", "evidence") from None
    return serialization, ed25519
