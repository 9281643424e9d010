"""Watermarks and fingerprints: ways to prove ownership by a key, each by its own paper."""

from collections.abc import Iterable

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.schemes import Scheme
from deepjudge_schemes.adi import ADI
from deepjudge_schemes.conferrable import CONFERRABLE
from deepjudge_schemes.deepsigns import DEEPSIGNS
from deepjudge_schemes.ewe import EWE
from deepjudge_schemes.frontier import FRONTIER
from deepjudge_schemes.ipguard import IPGUARD
from deepjudge_schemes.random_inclusion import RANDOM_INCLUSION
from deepjudge_schemes.uchida import UCHIDA
from deepjudge_schemes.zhang import ZHANG


@hookimpl
def deepjudge_schemes() -> Iterable[Scheme]:
    """The systems that the paper compares itself with (table II), and random inclusion."""
    return [ADI, CONFERRABLE, DEEPSIGNS, EWE, FRONTIER, IPGUARD, RANDOM_INCLUSION, UCHIDA, ZHANG]
