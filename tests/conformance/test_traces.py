"""A model is left as it was found, whatever was asked of it."""

import numpy as np
import pytest
from conforming import CONTROLS, REGISTRY, VICTIM, VICTIMS, arranged
from models import SHAPE, Zoo, inputs
from networks.architectures import BOUNDS

from deepjudge_core import AuditSettings, CalibrationSettings, Inputs, Model, Session, SuiteSettings, audit, open_model


def explode(scores: np.ndarray, rows: slice) -> np.ndarray:
    raise RuntimeError("in the middle of a gradient")


def look_into(model: Model) -> None:
    x = arranged(model, inputs(4))
    model.activations(x, list(model.layers))
    for layer in (None, *model.layers):
        model.gradient(x, lambda scores, rows: np.ones_like(scores), layer=layer)
        with pytest.raises(RuntimeError, match="in the middle of a gradient"):
            model.gradient(x, explode, layer=layer)


@pytest.mark.parametrize("kind", ["numpy", *VICTIMS])
def test_a_gradient_that_fails_says_why_and_changes_nothing(kind: str, zoo: Zoo) -> None:
    model = zoo.model(kind, VICTIM)
    x = arranged(model, inputs(4))
    before = model.predict(x)
    look_into(model)
    np.testing.assert_array_equal(model.predict(x), before)


def test_a_torch_module_is_left_as_it_was(zoo: Zoo) -> None:
    module = zoo.source("torch", VICTIM)
    module.train()
    module.conv2.eval()

    def state() -> list[object]:
        hooks = [
            (name, {key: len(value) for key, value in vars(part).items() if key.endswith("hooks")}, part.training)
            for name, part in module.named_modules()
        ]
        parameters = [(name, p.requires_grad, p.grad, p.tolist()) for name, p in module.named_parameters()]
        return [hooks, parameters, [sorted(vars(part)) for part in module.modules()]]

    before = state()
    assert not any(part._forward_hooks for part in module.modules())
    try:
        look_into(open_model(module, input_shape=SHAPE, registry=REGISTRY))
        assert state() == before
        # It would be noticed.
        hook = module.relu1.register_forward_hook(lambda *args: None)
        assert state() != before
        hook.remove()
        assert state() == before
    finally:
        module.eval()


def test_a_keras_model_is_left_as_it_was(zoo: Zoo) -> None:
    live = zoo.source("keras", 7)

    def state() -> list[object]:
        layers = [
            (id(layer), layer.call.__func__, len(layer._inbound_nodes), layer.trainable, layer.get_config())
            for layer in live.layers
        ]
        return [layers, [sorted(vars(layer)) for layer in live.layers], [w.tolist() for w in live.get_weights()]]

    before = state()
    look_into(open_model(live, registry=REGISTRY))
    assert state() == before
    # It would be noticed.
    live.layers[-1].call(live.layers[-1].input)
    assert state() == before
    live.layers[-1](live.layers[-1].input)
    assert state() != before


@pytest.mark.parametrize("victim", ["torch", "keras"])
def test_live_models_are_audited_as_they_are(victim: str, zoo: Zoo) -> None:
    owner = zoo.source(victim, VICTIM)
    x = inputs(60) if victim == "torch" else np.moveaxis(inputs(60), 1, -1)
    y = zoo.model(victim, VICTIM).predict(x).argmax(axis=1)
    suspects = [zoo.source("torch", VICTIM), zoo.source("keras", VICTIM), zoo.source("torch", 10)]
    controls = [zoo.source("torch", seed) for seed in CONTROLS]
    report = audit(
        *(owner, suspects, Inputs(x, y, BOUNDS)),
        controls=controls,
        # Random networks know nothing of the task.
        settings=AuditSettings(SuiteSettings(n=30, generators=["pgd"]), CalibrationSettings(far=True)),
        session=Session(REGISTRY),
    )
    *copies, other = [str(suspect.decision) for suspect in report.suspects]
    assert copies == ["copy", "copy"]
    # Random networks may all be at one distance, which tells nothing of how honest models differ.
    assert other in ("independent", "inconclusive")
