"""Writes files of the shapes of large llamas, and measures how long a comparison takes and how much memory.

    python benchmarks/weights/large.py FOLDER [--shape 1b|7b]

The files are sparse: what the comparison reads of them is random numbers, and the rest takes no place on the disk.
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from deepjudge_core.components.weights import open_weights

ROWS = 1024  # of a matrix that are written at a time
# Bits of a bfloat16: numbers of both signs from 1/64 to 1/32, of which a copy has other last bits.
ONE, SMALL, SIGN_AND_FRACTION, NOISE = (np.uint16(bits) for bits in (0x3F80, 0x3C80, 0x807F, 0x001F))
Tensor = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Size:
    """The shape of a llama."""

    width: int
    hidden: int
    blocks: int
    heads: int
    groups: int
    tokens: int

    def tensors(self) -> Iterator[Tensor]:
        """Names and shapes, in the order of the file."""
        d, key = self.width, self.width // self.heads * self.groups
        yield "model.embed_tokens.weight", (self.tokens, d)
        for block in range(self.blocks):
            at = f"model.layers.{block}."
            for name, rows, columns in (
                *(("self_attn.q_proj", d, d), ("self_attn.k_proj", key, d), ("self_attn.v_proj", key, d)),
                *(("self_attn.o_proj", d, d), ("mlp.gate_proj", self.hidden, d), ("mlp.up_proj", self.hidden, d)),
                ("mlp.down_proj", d, self.hidden),
            ):
                yield f"{at}{name}.weight", (rows, columns)
            yield f"{at}input_layernorm.weight", (d,)
            yield f"{at}post_attention_layernorm.weight", (d,)
        yield "model.norm.weight", (d,)
        yield "lm_head.weight", (self.tokens, d)


SIZES = {
    "1b": Size(2048, 8192, 16, 32, 8, 128256),
    "7b": Size(4096, 11008, 32, 32, 32, 32000),
}


def write(folder: Path, size: Size, seed: int, filled: set[str], *, noisy: bool = False) -> None:
    """Write a folder with one file in bfloat16; only tensors in ``filled`` and the vectors hold numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama", "hidden_size": size.width, "intermediate_size": size.hidden}
    config |= {"num_hidden_layers": size.blocks, "num_attention_heads": size.heads, "vocab_size": size.tokens}
    (folder / "config.json").write_text(json.dumps(config | {"num_key_value_heads": size.groups}))
    header, begin = {}, 0
    for name, shape in size.tensors():
        end = begin + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        start = file.tell()
        file.truncate(start + begin)
        for place, (name, shape) in enumerate(size.tensors()):
            if name not in filled and len(shape) > 1:
                continue
            file.seek(start + header[name]["data_offsets"][0])
            own, extra = np.random.default_rng([seed, place]), np.random.default_rng([seed + 1000, place])
            for row in range(0, shape[0], ROWS):
                part = (min(ROWS, shape[0] - row), *shape[1:])
                bits = np.full(part, ONE, np.uint16)
                if len(shape) > 1:
                    bits = _random(own, part) & SIGN_AND_FRACTION | SMALL
                    if noisy:
                        bits ^= _random(extra, part) & NOISE
                file.write(bits.astype("<u2").tobytes())


def _random(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(random.bytes(2 * prod(shape)), np.uint16).reshape(shape)


def read_by_plan(folder: Path) -> set[str]:
    """Names of the tensors that a plan for these weights needs."""
    from deepjudge_core.weights.roles import find_roles

    with open_weights(folder) as opened:
        plan, roles = opened.plan(), find_roles(opened.weights)
    blocks = {layer.name for layer in plan.layers}
    views = [view for layer in roles.layers if layer.name in blocks for view in layer.views]
    views += [view for view in (roles.embedding, roles.unembedding) if view is not None]
    return {view.tensor for view in views}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SIZES, default="1b")
    settings = parser.parse_args()
    size, folder = SIZES[settings.shape], settings.folder / settings.shape
    if not (folder / "independent").is_dir():
        write(folder / "empty", size, 0, set())
        filled = read_by_plan(folder / "empty")
        shutil.rmtree(folder / "empty")
        for name, seed in (("victim", 0), ("copy", 0), ("independent", 1)):
            write(folder / name, size, seed, filled, noisy=name == "copy")
    parameters = sum(prod(shape) for _, shape in size.tensors())
    print(f"{settings.shape}: {parameters / 1e9:.2f} billion parameters, {2 * parameters / 2**30:.1f} GiB a file")
    command = [str(Path(sys.executable).with_name("deepjudge")), "compare", str(folder / "victim")]
    for name in ("copy", "independent"):
        start = time.perf_counter()
        process = subprocess.Popen([*command, str(folder / name), "--no-sandbox"])
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        processor = used.ru_utime + used.ru_stime
        print(
            f"{settings.shape} {name}: {seconds:.1f} s, {processor:.1f} s of processors, "
            f"{used.ru_maxrss / 2**20:.2f} GiB, status {os.waitstatus_to_exitcode(status)}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
