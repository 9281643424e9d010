"""Imported where nothing but a stranger's model is opened: Keras then leaves out what it offers beside models.

It imports scikit-learn and matplotlib wherever they are installed, to wrap models for the one and to plot with the
other, and does without them where they are not. They take a third of the time.
"""

import sys

for _name in ("sklearn", "matplotlib"):
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]  # so that importing it fails
