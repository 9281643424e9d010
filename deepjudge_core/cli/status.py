"""Exit statuses, and what they say."""

from collections.abc import Mapping

NO_COPY, COPY, USAGE, INCONCLUSIVE, FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130

STATUSES: Mapping[int, str] = {
    NO_COPY: "no suspect is a copy",
    COPY: "at least one suspect is a copy, whatever else failed",
    USAGE: "the command line, or an AUDIT.toml, is wrong or names a file that is not there",
    INCONCLUSIVE: "no copy was found, but a verdict is inconclusive, or a skipped file may hold a model",
    FAILED: "a model, plugin or file failed, and no copy was found (--strict: even if one was, or a file was skipped), "
    "or a bundle is not verified",
    INTERRUPTED: "interrupted",
}
"""Each status, and what it says: the end of the help and a table of the documentation are made of this."""

VERIFIED: Mapping[int, str] = {
    NO_COPY: "the bundle is verified: nobody changed it, and its verdicts, whatever they are, follow from its answers",
    USAGE: "the command line is wrong or names a file that is not there",
    INCONCLUSIVE: "nothing is wrong, but something could not be checked",
    FAILED: "the bundle is not verified",
}
"""The same of the check of a bundle."""
