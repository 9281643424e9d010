"""Since when what suspects are judged by was fixed, as a report says it."""

import hashlib
from collections.abc import Iterable

from deepjudge_core.bundles.log import Query, time_of
from deepjudge_core.bundles.timestamp import read_response
from deepjudge_core.report.documents import CommittedEntry


def committed_entry(commitment: bytes, stamp: bytes, queries: Iterable[Query]) -> CommittedEntry:
    """What a report says of a commitment that has a time-stamp.

    Args:
        commitment: The commitment's file.
        stamp: The response that stamps it.
        queries: The log.

    Raises:
        FileFormatError: When the response stamps something else, or is none.
        MissingExtraError: Without the library.
    """
    time = read_response(stamp, commitment, "the time-stamp").time
    asked = [query for query in queries if query.role == "suspect" and query.observation is not None]
    times = [None if query.stored else time_of(query) for query in asked]
    before = bool(times) and all(one is not None and time <= one for one in times)
    digest = hashlib.sha256(commitment).hexdigest()
    return CommittedEntry(time.strftime("%Y-%m-%dT%H:%M:%SZ"), digest, before)
