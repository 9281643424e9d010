"""The contracts that every adapter, generator, metric, rule and attack must keep, for the tests of whoever writes one.

Each is a function that returns nothing, or raises an :class:`AssertionError` that says what was expected and what was
found. They need numpy and no test framework. A metric's whole test::

    from deepjudge_core.testing import check_metric

    def test_my_metric():
        check_metric(MY_METRIC)

:class:`NumpyModel` is a small victim for generators (see :func:`check_generator`), and :class:`NumpyArchitecture` makes
one for attacks (see :func:`check_attack`), where no framework is installed.
"""

from deepjudge_core.testing.attacks import check_attack
from deepjudge_core.testing.generators import check_generator
from deepjudge_core.testing.metrics import check_metric
from deepjudge_core.testing.models import check_model
from deepjudge_core.testing.networks import check_network
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.testing.numpy_network import NumpyArchitecture
from deepjudge_core.testing.rules import check_rule

__all__ = [
    "NumpyArchitecture",
    "NumpyModel",
    "check_attack",
    "check_generator",
    "check_metric",
    "check_model",
    "check_network",
    "check_rule",
]
