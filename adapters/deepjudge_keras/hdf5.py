"""What a stranger's HDF5 file may hold: groups, and tables of numbers that stand in the file itself."""

import math
from collections.abc import Iterator
from typing import Any

import h5py  # type: ignore[import-untyped]

from deepjudge_core.errors import ModelError

_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}

_INFLATION = 1000
"""Times the size of the file that all that it holds may have; deflation gains no more."""


def elements(file: Any, size: int) -> int:
    """The number of numbers in an open file, when it holds nothing but numbers.

    Args:
        size: Bytes of the file.

    Raises:
        ModelError: When it holds something else, in which case the message says what.
    """
    count = declared = 0
    for name, dataset in datasets(file):
        _expect_numbers(name, dataset)
        count += dataset.size
        chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        declared += max(dataset.size * dataset.dtype.itemsize, chunk)
        if declared > _INFLATION * size:
            raise ModelError(
                f"its HDF5 of {size} bytes declares at least {declared} bytes of numbers; save the model again"
            )
    return count


def whole_tables(file: Any) -> dict[str, tuple[int, ...]]:
    """The tables of whole numbers, or of true and false, among a model's weights: name to shape."""
    return {
        name: dataset.shape
        for name, dataset in datasets(file)
        if dataset.dtype.kind in "biu" and dataset.shape and not name.startswith("/optimizer")
    }


def datasets(file: Any) -> Iterator[tuple[str, Any]]:
    """Its tables, each once, by a name.

    Raises:
        ModelError: When it holds something else beside them.
    """
    groups, addresses = [("", file)], {h5py.h5o.get_info(file.id).addr}
    while groups:
        path, group = groups.pop()
        for key in group:
            name = f"{path}/{key}"
            if group.id.links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
                raise ModelError(
                    f"its HDF5 has the link {name!r:.80}, which may point to another file; save the model again"
                )
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in addresses:  # under another name, or a circle
                continue
            addresses.add(address)
            if isinstance(item, h5py.Group):
                groups.append((name, item))
            elif isinstance(item, h5py.Dataset):
                yield name, item
            else:
                raise ModelError(f"its HDF5 has the named type {name!r:.80}; save the model again")


def _expect_numbers(name: str, dataset: Any) -> None:
    if dataset.shape is None or (dataset.dtype.kind not in "biuf" and not _is_bfloat16(dataset)):
        raise ModelError(f"in its HDF5, {name!r:.80} holds {dataset.dtype} instead of numbers; save the model again")
    created = dataset.id.get_create_plist()
    if dataset.is_virtual or created.get_external_count():
        raise ModelError(f"in its HDF5, {name!r:.80} is stored in another file; save the model again")
    if any(created.get_filter(place)[0] not in _FILTERS for place in range(created.get_nfilters())):
        raise ModelError(f"in its HDF5, {name!r:.80} is compressed by another filter than gzip; save the model again")


def _is_bfloat16(dataset: Any) -> bool:
    # Keras notes what numpy knows as two bytes of anything.
    return dataset.dtype.kind == "V" and dataset.dtype.itemsize == 2 and dataset.dtype.fields is None
