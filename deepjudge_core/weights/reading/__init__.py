"""Readers of stored weights: bytes become float32, a few rows at a time, and no framework is imported."""
