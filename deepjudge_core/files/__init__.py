"""Somebody else's files and ours, read and written with care."""
