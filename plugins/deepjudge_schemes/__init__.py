"""Watermarks and fingerprints: ways to prove ownership by a key, each by its own paper."""

from collections.abc import Iterable

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.schemes import Scheme
from deepjudge_schemes.adi import ADI
from deepjudge_schemes.conferrable import CONFERRABLE
from deepjudge_schemes.ipguard import IPGUARD
from deepjudge_schemes.random_inclusion import RANDOM_INCLUSION


@hookimpl
def deepjudge_schemes() -> Iterable[Scheme]:
    """The systems that the paper compares itself with (table II), and random inclusion."""
    return [ADI, IPGUARD, CONFERRABLE, RANDOM_INCLUSION]
