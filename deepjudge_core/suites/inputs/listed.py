"""What pictures and recordings share: files that are read one by one, once it is known what the model takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from deepjudge_core.suites.inputs.listing import Listing
from deepjudge_core.suites.inputs.origin import Origin
from deepjudge_core.suites.inputs.raw import Reading
from deepjudge_core.types import Array


@dataclass(frozen=True, eq=False)
class ListedInputs:
    """Files that become inputs.

    Attributes:
        listing: Which.
        reading: How.
        origin: Where they are from; None if nobody looked.
    """

    listing: Listing
    reading: Reading
    origin: Origin | None = None

    @property
    def listed(self) -> Sequence[Path]:
        """See :class:`~deepjudge_core.suites.inputs.value.Offered`."""
        return self.listing.files

    def located(self, origin: Origin) -> Self:
        """See :class:`~deepjudge_core.suites.inputs.value.Offered`."""
        return replace(self, origin=origin)

    @property
    def y(self) -> Array | None:
        """See :class:`~deepjudge_core.suites.inputs.value.Offered`."""
        return self.listing.y

    @property
    def classes(self) -> Sequence[str] | None:
        """See :class:`~deepjudge_core.suites.inputs.value.Offered`."""
        return self.listing.classes
