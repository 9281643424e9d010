"""Folders of Hugging Face's classifiers."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import expect_facts, refused

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deepjudge[torch]'")
pytest.importorskip("transformers", reason="transformers is not installed: pip install 'deepjudge[huggingface]'")

import deepjudge_torch  # noqa: E402
import hugging_face  # noqa: E402
import safetensors.torch  # noqa: E402
from networks import formats  # noqa: E402

from deepjudge_core import (  # noqa: E402
    Access,
    InputSpec,
    Model,
    build_suite,
    measure,
    observe,
    open_model,
    select_seeds,
)
from deepjudge_core.components.opening import open_network  # noqa: E402
from deepjudge_core.errors import MissingExtraError, ModelError  # noqa: E402

(ADAPTER,) = deepjudge_torch.deepjudge_adapters()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hugging_face.save(hugging_face.network("ConvNeXt"), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def plain(small: Path) -> Model:
    return open_model(small)


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "m"))


def inputs(shape: tuple[int, ...], n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)


def answers(folder: Path, auto: Any, x: np.ndarray) -> np.ndarray:
    """By transformers itself."""
    with torch.no_grad():
        own = auto.from_pretrained(folder, local_files_only=True).eval()
        return own(torch.from_numpy(x)).logits.softmax(1).numpy()


@pytest.mark.parametrize("name", ["ViT", "ResNet", "Wav2Vec2", "AST"])
def test_predictions_are_those_of_transformers(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import transformers

    shape = hugging_face.CONFIGURATIONS[name][1]
    folder = hugging_face.save(hugging_face.network(name), tmp_path / "m")
    capfd.readouterr()
    # As the suite's inputs are, where the folder does not say it.
    model, x = open_model(folder, expected=InputSpec(shape)), inputs(shape)
    assert capfd.readouterr() == ("", "")
    image = len(shape) == 3
    auto = transformers.AutoModelForImageClassification if image else transformers.AutoModelForAudioClassification
    np.testing.assert_allclose(model.predict(x), answers(folder, auto, x), rtol=0, atol=1e-5)
    assert (model.classes, model.input.shape, model.notes) == (hugging_face.CLASSES, shape, ())
    assert Access.LAYERS | Access.GRADIENTS in model.access
    assert len(model.layers) > 1
    assert all(np.ptp(values) > 0 for values in model.activations(x, list(model.layers)).values())
    assert np.abs(model.gradient(x, lambda scores, rows: np.sign(scores))).max() > 0
    assert set(model.files) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(("sharded", "pickled"), [(True, False), (True, True), (False, True)])
def test_weights_in_other_files(sharded: bool, pickled: bool, plain: Model, tmp_path: Path) -> None:
    network = hugging_face.network("ConvNeXt")
    folder = hugging_face.save(network, tmp_path / "m", max_shard_size="8KB" if sharded else "1GB")
    assert (len(list(folder.glob("*.safetensors"))) > 1) is sharded
    for file in folder.glob("*.safetensors") if pickled else ():
        torch.save(safetensors.torch.load_file(file), folder / f"{file.stem.replace('model', 'pytorch_model')}.bin")
        file.unlink()
    index = folder / "model.safetensors.index.json"
    if pickled and sharded:
        text = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()
    x = inputs((3, 16, 16))
    np.testing.assert_array_equal(open_model(folder).predict(x), plain.predict(x))


def test_the_shape_is_that_of_the_folder(copied: Path, tmp_path: Path) -> None:
    assert open_model(copied).input.shape == (3, 16, 16)
    resnet = hugging_face.save(hugging_face.network("ResNet"), tmp_path / "r")
    with refused(ModelError, resnet, "input_shape"):
        open_model(resnet)
    (resnet / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 20}, "crop_size": 16}))
    assert open_model(resnet).input.shape == (3, 16, 16)


def test_what_it_says_of_inputs_is_said_and_not_done(plain: Model, copied: Path) -> None:
    settings = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.25], "do_rescale": True}
    (copied / "preprocessor_config.json").write_text(json.dumps(settings))
    model, x = open_model(copied), inputs((3, 16, 16))
    [note] = model.notes
    expect_facts(note, "scale=1,mean=0.5:0.4:0.3,std=0.2:0.2:0.25")
    np.testing.assert_array_equal(model.predict(x), plain.predict(x))
    for other in ({"do_normalize": True, "image_mean": "x", "image_std": 0}, []):
        (copied / "preprocessor_config.json").write_text(json.dumps(other))
        assert open_model(copied).notes == ()


def test_of_several_labels_at_once_each_has_its_probability(plain: Model, copied: Path) -> None:
    x = inputs((3, 16, 16))
    logits = plain.activations(x, [list(plain.layers)[-1]])
    model = open_model(hugging_face.change(copied, problem_type="multi_label_classification"))
    [scores] = logits.values()
    np.testing.assert_allclose(model.predict(x), 1 / (1 + np.exp(-scores)), rtol=0, atol=1e-6)


def test_it_can_be_made_anew(small: Path) -> None:
    network = open_network(small)
    assert sum(value.size for value in network.weights.values()) > 2000


def test_a_folder_of_models_is_none(copied: Path, registry: Any) -> None:
    assert registry.adapters.reads(copied)
    (copied / "model.safetensors").rename(copied / "other.safetensors")
    (copied / "model.onnx").touch()
    assert not registry.adapters.reads(copied)


def without_a_weight(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def script(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with formats.silenced(*formats.OLD):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), folder / "pytorch_model.bin")


def quantised(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"].to(torch.int8)
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def changed(**settings: Any) -> Callable[[Path], object]:
    return lambda folder: hugging_face.change(folder, **settings)


REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no head": (changed(architectures=["ConvNextModel"]), ("ConvNextModel",)),
    "another task": (changed(architectures=["ViTForMaskedImageModeling"]), ("ViTForMaskedImageModeling",)),
    "a regression": (changed(problem_type="regression"), ("regression",)),
    "text": (changed(model_type="bert", architectures=["BertForSequenceClassification"]), ("BertForSeq",)),
    "another library": (changed(model_type="timm_wrapper"), ("timm_wrapper",)),
    "an unknown network": (changed(model_type="no-such-network"), ("no-such-network",)),
    "more classes": (changed(id2label={str(i): str(i) for i in range(7)}, label2id={}), ("classifier.",)),
    "a weight less": (without_a_weight, ("missing", "classifier.weight")),
    "truncated weights": (cut, (torch.__version__,)),
    "a script for weights": (script, ("TorchScript",)),
    "integers": (quantised, ("quantised", "classifier.weight")),
    "settings under other names": (
        changed(attribute_map={"zzz": "_attn_implementation"}, zzz="attacker/evil-flash-attn"),
        ("attribute_map",),
    ),
    "settings under other names, of a part": (
        changed(vision_config={"attribute_map": {"zzz": "quantization_config"}, "zzz": {"quant_method": "mxfp4"}}),
        ("attribute_map",),
    ),
    "settings under other names, in a list": (changed(depths=[{"attribute_map": {"a": "b"}}]), ("attribute_map",)),
    "layers of their own configurations": (changed(per_layer_config={"0": {"hidden_act": "relu"}}), ("per_layer",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_classifier_with_all_its_weights(case: str, copied: Path) -> None:
    make, facts = REFUSED[case]
    make(copied)
    with refused(ModelError, f"{copied}: ", *facts):
        open_model(copied)


def test_a_weight_more_is_named(copied: Path) -> None:
    weights = safetensors.torch.load_file(copied / "model.safetensors")
    safetensors.torch.save_file(weights | {"convnext.more": torch.zeros(2)}, copied / "model.safetensors")
    [note] = open_model(copied).notes
    expect_facts(note, "convnext.more")


def test_a_configuration_has_no_settings_but_its_own(
    plain: Model, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepjudge_torch import huggingface

    others = {"base_model_tp_plan": {"x": "y"}, "to_json_string": "a", "extra_files": ["x"], "use_kernels": True}
    hugging_face.change(copied, **others, allow_all_kernels=True, stage_names=["stem", "stage1", "stage2"])
    configurations, own = list[Any](), huggingface._class_of
    monkeypatch.setattr(
        huggingface, "_class_of", lambda config, *a: (configurations.append(config), own(config, *a))[1]
    )
    model, x = open_model(copied), inputs((3, 16, 16))
    np.testing.assert_array_equal(model.predict(x), plain.predict(x))
    expect_facts("; ".join(model.notes), "base_model_tp_plan", "to_json_string", "extra_files", "2 more")
    [config] = configurations
    assert not vars(config).keys() & {*others, "allow_all_kernels"}


@pytest.mark.parametrize(
    ("own", "value"), [("_attn_implementation", "attacker/evil-attn"), ("quantization_config", {"quant_method": "x"})]
)
def test_whatever_leads_to_other_code_is_refused(
    own: str, value: Any, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setattr(transformers.ConvNextConfig, "attribute_map", {"zzz": own})
    with refused(ModelError, f"{copied}: "):
        open_model(hugging_face.change(copied, zzz=value))


def test_nobody_is_asked_while_it_is_opened(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from deepjudge_torch import huggingface
    from transformers.integrations import hub_kernels

    def settings() -> tuple[Any, ...]:
        names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "USE_HUB_KERNELS")
        return (*map(os.environ.get, names), huggingface_hub.constants.is_offline_mode(), hub_kernels._kernels_enabled)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("USE_HUB_KERNELS", "1")
    monkeypatch.setattr(hub_kernels, "_kernels_enabled", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    seen, own = list[Any](), huggingface.open_module
    monkeypatch.setattr(huggingface, "open_module", lambda *a, **k: (seen.append(settings()), own(*a, **k))[1])
    before = settings()
    open_model(small)
    assert seen == [("1", "1", "0", True, False)]
    assert settings() == before


def test_without_transformers_the_extra_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "deepjudge_torch.huggingface", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with refused(MissingExtraError, small, "transformers", "deepjudge[huggingface]"):
        ADAPTER.open(small)


def test_transformers_is_left_as_it_was(small: Path) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), torch.random.get_rng_state()
    open_model(small)
    after = logging.get_verbosity(), logging.is_progress_bar_enabled(), torch.random.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_all_distances_to_the_same_network_in_other_formats_are_float_errors(
    small: Path, tmp_path: Path, registry: Any
) -> None:
    pytest.importorskip("onnxscript", reason="PyTorch's exporter to ONNX needs it")
    pytest.importorskip("onnx2fx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
    network = hugging_face.network("ConvNeXt")
    # Its size in bytes is that of one weight: each has a file of its own.
    hugging_face.save(network, tmp_path / "sharded", max_shard_size=200)
    live = hugging_face.Logits(network).eval()
    rows = ({0: torch.export.Dim("rows")},)
    with formats.silenced(*formats.DYNAMO):
        torch.export.save(
            torch.export.export(live, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=rows), tmp_path / "m.pt2"
        )
        example = (torch.zeros(2, 3, 16, 16),)
        torch.onnx.export(live, example, tmp_path / "m.onnx", dynamo=True, dynamic_shapes=rows, verbose=False)
    victim, x = open_model(small, registry=registry), np.random.default_rng(3).random((80, 3, 16, 16), np.float32)
    seeds = select_seeds(victim, x, victim.predict(x).argmax(axis=1), n=12, bounds=(0, 1), force=True)
    options = {
        "pgd": {"eps": 0.3, "step": 0.05, "steps": 10},
        "neuron-corners": {"iterations": 20, "tries": 2, "per_neuron": 1},
    }
    suite = build_suite(victim, seeds, list(options), training_inputs=x, options=options, force=True, registry=registry)
    for name in ("sharded", "m.pt2", "m.onnx"):
        measured = measure(suite, observe(open_model(tmp_path / name, registry=registry), suite), registry=registry)
        assert len(measured) == 7
        assert all(measurement.value is not None and measurement.value < 1e-4 for measurement in measured.values()), (
            name
        )
