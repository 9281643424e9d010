"""Numbers become verdicts: distances, thresholds from controls, and a rule."""
