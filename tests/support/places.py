"""Where things are: the checkout, and real data beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
VICTIMS = DATA / "victims"
