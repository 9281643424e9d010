"""Makes models that know no key: of one architecture, and so in less time than ``deepjudge zoo``."""

import hashlib
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lenet import accuracy, save_onnx, train

from deepjudge_core.zoo.manifest import MANIFEST, Zoo, ZooModel, ZooVictim, load_zoo, save_zoo

_ROWS = 12_000  # that each is trained on, once


def make_independents(
    folder: Path,
    count: int,
    victim: ZooVictim,
    data: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
    tests: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
) -> None:
    """Make those that are not there, in turn of the victim's rows, the first half, and of others, as a zoo.

    Args:
        folder: Of the zoo.
        count: How many there are to be.
        victim: The model that they are independent of.
        data: Training inputs ``(n, 1, 28, 28)``, and their classes.
        tests: Test inputs and their classes.
    """
    folder.mkdir(exist_ok=True)
    zoo = load_zoo(folder) if (folder / MANIFEST).exists() else Zoo(folder, victim, {})
    half = len(data[0]) // 2
    for place in range(len(zoo.models), count):
        start, stratum = time.perf_counter(), ("same-data", "other-data")[place % 2]
        rows = np.random.default_rng(place).permutation(half)[:_ROWS] + half * (place % 2)
        network = train(data[0][rows], data[1][rows], place)
        file = f"{stratum}-{place:03}.onnx"
        save_onnx(network, folder / file)
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        share = accuracy(network, *tests)
        far, seconds = share < victim.accuracy - 0.1, round(time.perf_counter() - start, 3)
        zoo = zoo.with_model(
            ZooModel(file, "control", stratum, None, {"rows": _ROWS}, place, share, far, digest, digest, seconds)
        )
        save_zoo(zoo)
