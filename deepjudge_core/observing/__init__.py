"""A model answers a suite, and its layers and classes are put beside the victim's."""
