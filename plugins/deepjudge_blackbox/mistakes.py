"""Mistakes: what the victim gets wrong by itself."""

from deepjudge_core.components.values import Cases, Mistakes, Task


def mistakes(task: Task) -> Cases:
    """Take the inputs that the victim misclassifies as they are (Godinot et al., 2025).

    They are those of the inputs offered as seeds. One whose label is wrong in the data is among them, too.
    """
    seeds = task.seeds
    return Cases.of_mistakes(seeds.mistakes or Mistakes(seeds.inputs[:0], seeds.labels[:0]))
