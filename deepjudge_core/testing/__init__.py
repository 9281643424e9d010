"""The contracts that every adapter, generator, metric, rule, attack and scheme must keep, for tests of plugins.

For each kind of component there is a function that gives checks with names, such as :func:`metric_checks`. Each check
is a call without arguments that returns nothing, or raises an :class:`AssertionError` that says what was expected and
what was found. They need numpy and no test framework; pytest runs them one by one, so that each has its own line::

    from deepjudge_core.testing import metric_checks, parametrize_with_checks

    @parametrize_with_checks([("my-metric", metric_checks(MY_METRIC))])
    def test_my_metric(check):
        check()

Without pytest ``check_metric(MY_METRIC)`` and its like run all, up to the first that fails.

:class:`NumpyModel` is a small victim for generators (see :func:`generator_checks`), and :class:`NumpyArchitecture`
makes one for attacks (see :func:`attack_checks`), where no framework is installed.
"""

from deepjudge_core.testing.attacks import attack_checks, check_attack
from deepjudge_core.testing.checks import Check, Checks, parametrize_with_checks
from deepjudge_core.testing.generators import check_generator, generator_checks
from deepjudge_core.testing.metrics import check_metric, metric_checks
from deepjudge_core.testing.models import check_model, model_checks
from deepjudge_core.testing.networks import check_network, network_checks
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.testing.numpy_network import NumpyArchitecture
from deepjudge_core.testing.rules import check_rule, rule_checks
from deepjudge_core.testing.schemes import check_scheme, scheme_checks
from deepjudge_core.testing.stored import check_weights, weights_checks

__all__ = [
    "Check",
    "Checks",
    "NumpyArchitecture",
    "NumpyModel",
    "attack_checks",
    "check_attack",
    "check_generator",
    "check_metric",
    "check_model",
    "check_network",
    "check_rule",
    "check_scheme",
    "check_weights",
    "generator_checks",
    "metric_checks",
    "model_checks",
    "network_checks",
    "parametrize_with_checks",
    "rule_checks",
    "scheme_checks",
    "weights_checks",
]
