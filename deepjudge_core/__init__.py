"""Tell whether a suspect deep-learning model is a copy of yours.

The flow, each step a frozen value: inputs -> seeds -> suite -> observations -> measurements -> verdict.

Here models are functions from inputs to scores; paths of files, and live models of PyTorch or Keras, do as well. Each
owner trains one on data of their own, the thief takes the first:

    >>> import numpy as np
    >>> import deepjudge_core as dj
    >>> task = np.random.default_rng(0).normal(size=(16, 3))
    >>> def label(x):
    ...     return ((x - 0.5) @ task).argmax(axis=1)
    >>> def train(seed):
    ...     x = np.random.default_rng(seed).random((150, 16))
    ...     weights = np.linalg.lstsq(x - 0.5, 9 * np.eye(3)[label(x)], rcond=None)[0]
    ...     return lambda x: (x - 0.5) @ weights
    >>> victim, honest, controls = train(1), train(5), [train(seed) for seed in range(10, 22)]
    >>> def thief(x):
    ...     return victim(x + 0.01)

The victim's suite, the controls' answers, and a verdict:

    >>> x = np.random.default_rng(2).random((200, 16))
    >>> suite = dj.make_suite(victim, dj.Inputs(x, label(x)), dj.SuiteSettings(n=30))
    >>> calibration = dj.calibrate(suite, [dj.observe(control, suite) for control in controls])
    >>> for suspect in (thief, honest):
    ...     verdict = dj.judge(dj.measure(suite, dj.observe(suspect, suite)), calibration)
    ...     print(verdict.decision)
    copy
    independent
"""

from typing import Any

import lazy_loader

from deepjudge_core.sheets import draw_pages
from deepjudge_core.version import VERSION as __version__  # noqa: N811

# What each worker would otherwise import for nothing; the names stand in __init__.pyi.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def _page(outcome: Any) -> str:
    from deepjudge_core.report.outcomes import page_of_outcome  # not before a page is asked for: it loads jinja2

    return page_of_outcome(outcome)


draw_pages("deepjudge_core.auditing.outcome.AuditOutcome", _page)
draw_pages("deepjudge_core.auditing.power.PowerEstimate", _page)
