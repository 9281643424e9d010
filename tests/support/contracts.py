"""What the tests of the contracts share: a model that keeps its contract, and which checks of a contract fail."""

from deepjudge_core.testing import Checks, NumpyModel


class Healthy(NumpyModel):
    """In batches of three, so that there are several."""

    @classmethod
    def make(cls) -> "Healthy":
        weights = NumpyModel.random((4,), (7, 6), 3, seed=0).weights
        return cls(weights, (4,), activation="tanh", batch_size=3)


def failures(checks: Checks) -> dict[str, str]:
    """The checks that fail, each run by itself, with what they say."""
    texts = {}
    for name, check in checks:
        try:
            check()
        except AssertionError as error:
            texts[name] = str(error)
        except Exception:  # what is broken for one check may fail before another one can say so
            continue
    return texts
