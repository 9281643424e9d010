"""One transformer in the formats that people keep weights in."""

import json
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from byte_transformers import LENGTH, Model, Tensors, save, vocabulary
from safetensors.torch import save_file
from torch import nn

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    r"model.layers.(\d+).self_attn.([qkv])_proj": r"blk.\1.attn_\2",
    r"model.layers.(\d+).self_attn.o_proj": r"blk.\1.attn_output",
    r"model.layers.(\d+).mlp.(gate|up|down)_proj": r"blk.\1.ffn_\2",
    r"model.layers.(\d+).input_layernorm": r"blk.\1.attn_norm",
    r"model.layers.(\d+).post_attention_layernorm": r"blk.\1.ffn_norm",
}


def save_sharded(model: Model, folder: Path, shards: int = 2) -> None:
    """Write a folder whose weights lie in several files, with an index."""
    save(model, folder)
    (folder / "model.safetensors").unlink()
    where: dict[str, str] = {}
    names = sorted(model.tensors)
    for place in range(shards):
        file = f"model-{place + 1:05}-of-{shards:05}.safetensors"
        part = {name: model.tensors[name].contiguous() for name in names[place::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    size = sum(one.numel() * one.element_size() for one in model.tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def save_as(model: Model, folder: Path, dtype: torch.dtype) -> None:
    """Write a folder whose floats have fewer bits."""
    save(Model(model.shape, {name: one.to(dtype) for name, one in model.tensors.items()}), folder)


def save_lora(model: Model, pairs: Pairs, folder: Path, base: Path) -> None:
    """Write adapters of low rank as the library peft does, with the place of the base."""
    folder.mkdir(parents=True, exist_ok=True)
    rank = len(next(iter(pairs.values()))[0])
    tensors: Tensors = {}
    for name, (a, b) in pairs.items():
        stem = "base_model.model." + name.removesuffix(".weight")
        tensors |= {f"{stem}.lora_A.weight": a.contiguous(), f"{stem}.lora_B.weight": b.contiguous()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    modules = sorted({name.removesuffix(".weight").rpartition(".")[2] for name in pairs})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": rank,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": model.shape.kind == "gpt2",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))


def save_gguf(model: Model, path: Path, kind: str) -> None:
    """Write a llama as llama.cpp does, with matrices as ``Q8_0``, ``Q4_0`` or ``F32``; widths are multiples of 32."""
    import gguf

    shape = model.shape
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("bytes")
    writer.add_block_count(shape.blocks)
    writer.add_context_length(LENGTH)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(vocabulary()))
    for name, tensor in model.tensors.items():
        data = tensor.float()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            # llama.cpp turns pairs of neighbours, where the library transformers turns halves.
            data = data.reshape(shape.heads, 2, -1, shape.width).transpose(1, 2).reshape(data.shape)
        quantised = gguf.GGMLQuantizationType[kind if data.ndim == 2 else "F32"]
        values = gguf.quants.quantize(data.contiguous().numpy(), quantised)
        writer.add_tensor(gguf_name(name), values, raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    """What llama.cpp calls a tensor of a llama."""
    stem, _, last = name.rpartition(".")
    for pattern, wanted in GGUF_NAMES.items():
        if re.fullmatch(pattern, stem):
            return f"{re.sub(pattern, wanted, stem)}.{last}"
    raise ValueError(f"expected the name of a tensor of a llama, found {name}")


def save_onnx(folder: Path, path: Path) -> None:
    """Write what PyTorch's exporter makes of a folder that the library transformers opens, for rows of one length."""
    from transformers import AutoModelForCausalLM

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids, use_cache=False).logits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Scores(), (torch.ones(2, LENGTH, dtype=torch.long),), path, dynamo=True, verbose=False)


def save_formats(model: Model, pairs: Pairs, base: Path, folder: Path) -> list[Path]:
    """Write ``base`` with its adapters merged in eight formats, and return where.

    Args:
        model: The base.
        pairs: Adapters of low rank for it.
        base: The folder where the base lies.
        folder: What to write to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merged = model.edited(lambda w: w | {name: w[name] + b @ a for name, (a, b) in pairs.items()})
    save(merged, folder / "folder")
    save_sharded(merged, folder / "sharded")
    save_as(merged, folder / "bfloat16", torch.bfloat16)
    save_lora(model, pairs, folder / "lora", base)
    save_gguf(merged, folder / "q8.gguf", "Q8_0")
    save_gguf(merged, folder / "q4.gguf", "Q4_0")
    torch.save(merged.tensors, folder / "state-dict.pth")
    save_onnx(folder / "folder", folder / "exported.onnx")
    shutil.copy(base / "tokenizer.json", folder / "tokenizer.json")
    return [folder / name for name in FORMATS]


FORMATS = ("folder", "sharded", "bfloat16", "lora", "q8.gguf", "q4.gguf", "state-dict.pth", "exported.onnx")
