"""What components must not draw from."""

import numpy as np


def global_numbers() -> str:
    """Where numpy's global random numbers stand: other text once somebody drew from them."""
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - what a component must not use
    return f"{state['state']['key'].tobytes().hex()} {state['state']['pos']} {state['has_gauss']} {state['gauss']}"
