"""Weights whose names an exporter took away are called as the modules that multiply by them."""

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from deepjudge_weights.metrics import neuron_sketch, order_chance  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from deepjudge_core.components.values import Answers  # noqa: E402
from deepjudge_core.components.weights import open_weights  # noqa: E402

WIDTH, HIDDEN, TOKENS, BLOCKS = 16, 48, 40, 2
NEW, OLD = "metadata", "names"


def weights(seed: int) -> dict[str, np.ndarray]:
    """Of a transformer without attention, with the usual names and shapes."""
    random = np.random.default_rng(seed)
    made = {"model.embed_tokens.weight": random.normal(size=(TOKENS, WIDTH))}
    for block in range(BLOCKS):
        at = f"model.layers.{block}.mlp."
        made |= {f"{at}{name}_proj.weight": random.normal(size=(HIDDEN, WIDTH)) for name in ("gate", "up")}
        made[f"{at}down_proj.weight"] = random.normal(size=(WIDTH, HIDDEN))
    made["lm_head.weight"] = random.normal(size=(TOKENS, WIDTH))
    return {name: one.astype(np.float32) for name, one in made.items()}


def exported(path: Path, made: dict[str, np.ndarray], how: str) -> Path:
    """As exporters write it: matrices transposed, with numbers for names; a reshape, as in attention, is between."""
    initialisers, nodes = [], []

    def multiply(read: str, module: str, out: str) -> None:
        short = f"onnx::MatMul_{len(initialisers)}"
        initialisers.append(numpy_helper.from_array(np.ascontiguousarray(made[f"{module}.weight"].T), short))
        name = f"/{module.replace('.', '/').replace('layers/', 'layers.')}/MatMul" if how == OLD else f"node_{out}"
        node = helper.make_node("MatMul", [read, short], [out], name=name)
        if how == NEW:
            pair = node.metadata_props.add()
            pair.key, pair.value = (
                "pkg.torch.onnx.name_scopes",
                str(["", module.rpartition(".")[0], module, f"linear_{out}"]),
            )
        nodes.append(node)

    initialisers.append(numpy_helper.from_array(made["model.embed_tokens.weight"], "model.embed_tokens.weight"))
    initialisers.append(numpy_helper.from_array(np.array([0, 0, 4, 4], np.int64), "split"))
    initialisers.append(numpy_helper.from_array(np.array([0, 0, WIDTH], np.int64), "joined"))
    nodes.append(helper.make_node("Gather", ["model.embed_tokens.weight", "ids"], ["x0"]))
    for block in range(BLOCKS):
        at, x = f"model.layers.{block}.mlp", f"x{block}"
        nodes.append(helper.make_node("Reshape", [x, "split"], [f"{x}s"]))
        nodes.append(helper.make_node("Reshape", [f"{x}s", "joined"], [f"{x}j"]))
        multiply(f"{x}j", f"{at}.gate_proj", f"g{block}")
        multiply(f"{x}j", f"{at}.up_proj", f"u{block}")
        nodes.append(helper.make_node("Sigmoid", [f"g{block}"], [f"s{block}"]))
        nodes.append(helper.make_node("Mul", [f"s{block}", f"u{block}"], [f"h{block}"]))
        multiply(f"h{block}", f"{at}.down_proj", f"d{block}")
        nodes.append(helper.make_node("Add", [f"{x}j", f"d{block}"], [f"x{block + 1}"]))
    multiply(f"x{BLOCKS}", "lm_head", "scores")
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 8, TOKENS])],
        initialisers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def compared(victim: Path, suspect: Path) -> tuple[float, float]:
    with open_weights(victim) as opened:
        plan = opened.plan()
        ours = Answers(np.empty(0, np.int64), weights=opened.sketch(plan, victim=True))
    with open_weights(suspect) as opened:
        theirs = Answers(np.empty(0, np.int64), weights=opened.sketch(plan))
    return neuron_sketch(ours, theirs), order_chance(ours, theirs).log10_p


@pytest.mark.parametrize("how", [NEW, OLD])
def test_an_exported_transformer_is_its_original(tmp_path: Path, how: str) -> None:
    from safetensors.numpy import save_file

    save_file(weights(0), tmp_path / "model.safetensors")
    same, other = (exported(tmp_path / f"{seed}.onnx", weights(seed), how) for seed in (0, 1))
    distance, chance = compared(tmp_path / "model.safetensors", same)
    assert distance < 1e-3
    assert chance < -50
    distance, chance = compared(tmp_path / "model.safetensors", other)
    assert distance > 0.3
    assert chance > -3


def test_a_module_that_multiplies_by_two_weights_names_neither(tmp_path: Path) -> None:
    path = exported(tmp_path / "model.onnx", weights(0), OLD)
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "MatMul":
            node.name = "/model/layers.0/mlp/gate_proj/MatMul"
    onnx.save(model, path)
    with open_weights(path) as opened:
        assert all(not name.endswith("gate_proj.weight") for name in opened.weights.tensors)
        assert len(opened.weights.tensors) == len(model.graph.initializer)


@pytest.mark.parametrize("scopes", ["", "['']", "'" * 9, "[" * 10_000, "['a'", "['', 'x' * 9]"])
def test_metadata_that_say_nothing_leave_names_as_they_are(tmp_path: Path, scopes: str) -> None:
    path = exported(tmp_path / "model.onnx", weights(0), NEW)
    model = onnx.load(path)
    for node in model.graph.node:
        for pair in node.metadata_props:
            pair.value = scopes
    onnx.save(model, path)
    with open_weights(path) as opened:
        assert set(opened.weights.tensors) == {one.name for one in model.graph.initializer}
