"""The commands, one in each file: its settings, what it does, and how it ends."""
