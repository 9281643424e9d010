"""Mistakes: what the victim gets wrong by itself."""

from deepjudge_core.components.values import Cases, Mistakes, Task


def mistakes(task: Task) -> Cases:
    """Use inputs that the victim misclassifies, unchanged (Godinot et al., 2025).

    They come from the inputs offered as seeds, and include inputs whose label in the data is wrong.
    """
    seeds = task.seeds
    return Cases.of_mistakes(seeds.mistakes or Mistakes(seeds.inputs[:0], seeds.labels[:0]))
