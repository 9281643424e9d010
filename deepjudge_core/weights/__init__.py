"""Weights that are read and never run: what their neurons are, and sketches by which they are compared."""
