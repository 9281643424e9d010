"""How a model was kept from all but answering.

Without numpy, which may start threads: a process confines itself before it has any.
"""

import enum


class Isolation(enum.StrEnum):
    """How a model was kept from all but answering, as it was observed, not as it was asked for.

    ``FULL``: it can read the Python installation and its own copy, write in a folder of its own, and start nothing.
    ``NO_OPEN``: it can open no file and start nothing; for systems without Landlock.
    ``PROCESS``: it can do what the user can, but not crash, hang or exhaust the audit.
    ``NONE``: it ran in the audit's own process.
    """

    FULL = "landlock+seccomp"
    NO_OPEN = "seccomp-noopen"
    PROCESS = "process-only"
    NONE = "none"
