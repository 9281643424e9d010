"""How alike two layers' outputs are, whatever the order of their neurons."""

import functools
import math

import numpy as np

from deepjudge_core.types import Array

_LEAST_UNBIASED = 4  # inputs, with which an unbiased HSIC is defined
_ROUNDING = 1e-9  # an unbiased HSIC that is a smaller share of the biased one may be nothing but rounding


class Outputs:
    """A layer's outputs, made ready to be compared with several others'."""

    def __init__(self, outputs: Array) -> None:
        """Take ``(n, neurons)``."""
        self._centred = _centred(outputs)

    def cka(self, other: "Outputs") -> float:
        """See :func:`linear_cka`."""
        norm = self._norm * other._norm
        return min(self.hsic(other) / norm, 1.0) if norm > 0 else 0.0

    def hsic(self, other: "Outputs") -> float:
        """Of linear kernels XX' and YY', centred, times (n - 1)^2."""
        # By neurons or by inputs, whichever are fewer.
        x, y = self._centred, other._centred
        if len(x) < min(x.shape[1], y.shape[1]):
            return float(np.sum(self._kernel * other._kernel))
        return float(np.linalg.norm(x.T @ y) ** 2)

    def unbiased_hsic(self, other: "Outputs") -> float:
        """Song et al.'s estimate times n (n - 3)."""
        # Of centred outputs each row of a kernel sums to 0, so that its sum without the diagonal is minus the
        # diagonal's entry, and nothing but diagonals is to be added.
        n, (a, b) = len(self._centred), ((one._centred**2).sum(axis=1) for one in (self, other))
        return float(self.hsic(other) - n / (n - 2) * (a @ b) + a.sum() * b.sum() / ((n - 1) * (n - 2)))

    @functools.cached_property
    def _norm(self) -> float:
        return math.sqrt(self.hsic(self))

    @functools.cached_property
    def _kernel(self) -> Array:
        kernel: Array = self._centred @ self._centred.T
        return kernel


def linear_cka(ours: Array, theirs: Array) -> float:
    """Linear centred kernel alignment of two layers' outputs, 0..1 (Kornblith et al. 2019, section 3).

    It is 1 where one is the other turned, reflected or scaled as a whole: the order of neurons does not matter.

    Args:
        ours: ``(n, neurons)``.
        theirs: ``(n, other neurons)``, on the same inputs.

    Returns:
        0 also where one of them does not depend on the input.
    """
    return Outputs(ours).cka(Outputs(theirs))


def unbiased_linear_cka(ours: Array, theirs: Array) -> float:
    """The same of unbiased estimates, -1..1 (Song et al. 2012, eq. 5; Nguyen et al. 2021, section 3).

    Of unrelated outputs it is 0 in the mean, whatever the number of inputs; :func:`linear_cka` is above 0, and the more
    so the fewer they are. An unbiased HSIC is an inner product (Szekely and Rizzo 2014, section 4), hence the range.

    Args:
        ours: ``(n, neurons)``.
        theirs: ``(n, other neurons)``, on the same inputs.

    Returns:
        0 also where one of them is the same for all inputs, or for all but one, and for fewer than 4 inputs.
    """
    if len(ours) < _LEAST_UNBIASED:
        return 0.0
    x, y = Outputs(ours), Outputs(theirs)
    own = [z.unbiased_hsic(z) for z in (x, y)]
    if any(value <= _ROUNDING * z.hsic(z) for value, z in zip(own, (x, y), strict=True)):
        return 0.0
    return max(-1.0, min(x.unbiased_hsic(y) / math.sqrt(own[0]) / math.sqrt(own[1]), 1.0))


def _centred(outputs: Array) -> Array:
    # At most 1, so that fourth powers of the greatest numbers are numbers still; CKA does not see the scale.
    centred: Array = outputs.astype(np.float64) - outputs.mean(axis=0, dtype=np.float64)
    greatest = float(np.abs(centred).max(initial=0))
    return centred / greatest if greatest > 0 else centred
