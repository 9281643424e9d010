"""Time-stamps by somebody else (RFC 3161), by the library ``rfc3161-client``; no connection is opened."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepjudge_core.errors import FileFormatError, MissingExtraError, UsageError, first_line
from deepjudge_core.files.reading import open_regular

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_LARGEST = 2**20  # bytes: a response has some thousand, with its certificates
_SHA256 = "2.16.840.1.101.3.4.2.1"
_GRANTED = 0


@dataclass(frozen=True)
class Stamp:
    """A time-stamp of some bytes.

    Attributes:
        time: When they were there, as the authority says, in UTC.
        verified: Whether its signature and the chain of its certificates were checked. Otherwise anybody may have
            written the time.
    """

    time: datetime
    verified: bool


def make_request(data: bytes, source: object) -> bytes:
    """A request to stamp some bytes, in DER: their SHA-256, a nonce, and the wish for the authority's certificates.

    Args:
        data: The bytes.
        source: What messages call them.

    Raises:
        MissingExtraError: Without the library.
    """
    library = _library(source)
    built = library.TimestampRequestBuilder(data, library.HashAlgorithm.SHA256, nonce=True, cert_req=True).build()
    return bytes(built.as_bytes())


def load_response(path: Path, data: bytes) -> bytes:
    """An authority's response that stamps some bytes, as it stands in a file.

    Args:
        path: The file.
        data: The bytes that it has to stamp.

    Raises:
        FileFormatError: When it is none, was not granted, or stamps other bytes.
        MissingExtraError: Without the library.
    """
    with open_regular(path, "a time-stamp response", _LARGEST) as file:
        response = file.read(_LARGEST)
    read_response(response, data, path)
    return response


def load_certificates(path: Path) -> tuple["Certificate", ...]:
    """The certificates in a PEM file: an authority's root, and those between where its responses do not hold them.

    Raises:
        UsageError: When there is none in it.
        MissingExtraError: Without the library.
    """
    _library(path)
    from cryptography import x509

    with open_regular(path, "certificates", _LARGEST, UsageError) as file:
        try:
            return tuple(x509.load_pem_x509_certificates(file.read(_LARGEST)))
        except Exception:  # the library's, of many kinds
            raise UsageError(f"{path}: expected a certificate in PEM, found another file", code="wrong-value") from None


def read_response(
    response: bytes, data: bytes, source: object, certificates: Sequence["Certificate"] | None = None
) -> Stamp:
    """What a response says of some bytes.

    Its nonce is that of the request, and whoever has no request cannot check it.

    Args:
        response: The response, in DER.
        data: The bytes that it has to stamp.
        source: What messages call the response.
        certificates: What the authority's certificate has to come from, when it stamped; None to believe anybody.

    Raises:
        FileFormatError: When it is none, was not granted, stamps other bytes, or is not the authority's.
        MissingExtraError: Without the library.
    """
    library = _library(source)
    digest = hashlib.sha256(data).digest()
    try:
        answer = library.decode_timestamp_response(response)
        if answer.status != _GRANTED:
            why = f" ({'; '.join(answer.status_string)})" if answer.status_string else ""
            raise FileFormatError(f"{source}: expected a time-stamp, found a refusal of the request{why}")
        imprint, time = answer.tst_info.message_imprint, answer.tst_info.gen_time
        if (imprint.hash_algorithm.dotted_string, imprint.message) != (_SHA256, digest):
            raise FileFormatError(
                f"{source}: expected the time-stamp of {digest.hex()}, found the time-stamp of something else"
            )
    except FileFormatError:
        raise
    except Exception:  # the library's, of many kinds, which name places in ASN.1
        raise FileFormatError(
            f"{source}: expected an authority's time-stamp response to the request, found a damaged or other file",
            code="damaged-file",
        ) from None
    if certificates is not None:
        try:
            library.VerifierBuilder(roots=list(certificates)).build().verify(answer, digest)
        except Exception as error:
            raise FileFormatError(
                f"{source}: expected a signature by the authority whose certificate was given: {first_line(error)}"
            ) from None
    return Stamp(time, verified=certificates is not None)


def _library(source: object) -> Any:
    try:
        import rfc3161_client
    except ImportError:
        raise MissingExtraError(str(source), "rfc3161-client", "evidence") from None
    return rfc3161_client
