"""The contract of models fails where it should: here it is broken in each way that it is there for."""

import numpy as np
import pytest
from contracts import Healthy, failures

from deepjudge_core import Access
from deepjudge_core.models.scores import softmax
from deepjudge_core.testing import check_model, model_checks


class ScaledGradient(Healthy):
    def backward(self, x, cotangent, layer):
        return 1.03 * super().backward(x, cotangent, layer)


class NoGradientAtOneLayer(Healthy):
    def backward(self, x, cotangent, layer):
        return super().backward(x, cotangent, layer) * (layer != "dense1")


class OnePixelWithoutGradient(Healthy):
    def backward(self, x, cotangent, layer):
        gradient = super().backward(x, cotangent, layer)
        gradient[:, 0] = 0
        return gradient


class GradientNotANumber(Healthy):
    def backward(self, x, cotangent, layer):
        return super().backward(x, cotangent, layer) * np.float32(np.nan)


class OneRowWithoutGradient(Healthy):
    def backward(self, x, cotangent, layer):
        gradient = super().backward(x, cotangent, layer)
        gradient[x[:, 0] < 0.2] = 0
        return gradient


class GradientOfMean(Healthy):
    def backward(self, x, cotangent, layer):
        return super().backward(x, cotangent, layer) / len(x)


class GradientOfProbabilities(Healthy):
    def gradient(self, x, cotangent, *, layer=None):
        def through_softmax(scores, rows):
            p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            at_p = cotangent(scores, rows)
            return p * (at_p - (at_p * p).sum(axis=1, keepdims=True))

        return super().gradient(x, cotangent if layer else through_softmax, layer=layer)


class ExchangesScores(Healthy):
    def mixed(self, x, layer, order):
        return super().mixed(x, layer, order) + 1


class WrongRows(Healthy):
    def gradient(self, x, cotangent, *, layer=None):
        return super().gradient(x, lambda s, r: cotangent(s, slice(0, len(s))), layer=layer)


class AsksTwice(Healthy):
    def gradient(self, x, cotangent, *, layer=None):
        return super().gradient(x, lambda s, r: (cotangent(s, r), cotangent(s, r))[1], layer=layer)


class PaddingSeen(Healthy):
    def gradient(self, x, cotangent, *, layer=None):
        def padded(scores, rows):
            return cotangent(np.concatenate([scores, scores[-1:]]), rows)[: len(scores)]

        return super().gradient(x, padded, layer=layer)


class Unnormalised(Healthy):
    def predict(self, x):
        return super().predict(x) * np.float32(1.01)


class Negative(Healthy):
    def predict(self, x):
        return super().predict(x) + np.float32([1, -1, 0])


class Float64(Healthy):
    def predict(self, x):
        return super().predict(x).astype(np.float64)


class NotANumber(Healthy):
    def predict(self, x):
        return super().predict(x) * np.float32(np.nan)


class TrainingMode(Healthy):
    def forward(self, x, layers):
        return super().forward(x - x.mean(axis=0), layers)


class ForgetsTheLastRows(Healthy):
    def activations(self, x, layers):
        outputs = super().activations(x, layers)
        for values in outputs.values():
            values[4:] = 0
        return outputs


class OtherOutput(Healthy):
    def predict(self, x):
        return super().predict(x)[:, ::-1].copy()


class OtherWidth(Healthy):
    def activations(self, x, layers):
        return {layer: values[:, :5] for layer, values in super().activations(x, layers).items()}


class AlwaysAll(Healthy):
    def activations(self, x, layers):
        super().activations(x, layers)
        return super().activations(x, list(self.layers))


class OtherNeuronsAlone(Healthy):
    def activations(self, x, layers):
        outputs = super().activations(x, layers)
        return {layer: values[:, ::-1] if len(layers) == 1 else values for layer, values in outputs.items()}


class OtherNumbersEachTime(Healthy):
    times = 0

    def predict(self, x):
        self.times += 1
        return np.roll(super().predict(x), self.times, axis=1)


class OtherGradientEachTime(Healthy):
    times = 0

    def backward(self, x, cotangent, layer):
        self.times += 1
        return super().backward(x, cotangent, layer) * np.float32(1 + 1e-6 * self.times)


class LeavesAHook(Healthy):
    hooks = 0

    def gradient(self, x, cotangent, *, layer=None):
        self.hooks += layer is not None
        return super().gradient(x, cotangent, layer=layer)

    def predict(self, x):
        return np.roll(super().predict(x), self.hooks, axis=1)


class ChangesItsInputs(Healthy):
    def predict(self, x):
        p = super().predict(x)
        x[:] = 0
        return p


class KeyErrorForLayers(Healthy):
    def _require(self, layer):
        self.layers[layer]


class NoErrorForLayers(Healthy):
    def activations(self, x, layers):
        return super().activations(x, [layer for layer in layers if layer in self.layers])


class ShortDigest(Healthy):
    digest = property(lambda self: "1234", lambda self, value: None)


class OtherDigest(Healthy):
    digest = property(lambda self: np.random.bytes(32).hex(), lambda self, value: None)  # noqa: NPY002


class HiddenGradient(Healthy):
    access = property(lambda self: Access.WHITE_BOX, lambda self, value: None)


class GradientsAlone(Healthy):
    access = property(lambda self: Access.BLACK_BOX | Access.GRADIENTS, lambda self, value: None)


class Rounded(Healthy):
    def activations(self, x, layers):
        return {layer: np.round(values) for layer, values in super().activations(x, layers).items()}

    def predict(self, x):
        return softmax(self.activations(x, ["logits"])["logits"])

    def gradient(self, x, cotangent, *, layer=None):
        return super().gradient(x, lambda s, r: cotangent(np.round(s), r) * 0, layer=layer)


BROKEN_MODELS = {
    ScaledGradient: "gradient at 'dense1' differs from finite differences",
    NoGradientAtOneLayer: "gradient at 'dense1' differs from finite differences",
    OnePixelWithoutGradient: "gradient at 'dense1' differs from finite differences",
    GradientNotANumber: "gradient: .* they differ by nan|found NaN",
    OneRowWithoutGradient: "gradient at 'dense1' differs from finite differences at 1 of 8 inputs",
    GradientOfMean: "gradient: one input at a time and all together",
    GradientOfProbabilities: "the gradient at 'logits' and without a layer",
    ExchangesScores: "exchanged between equal inputs, and without",
    WrongRows: "expected each row to be given once",
    AsksTwice: "expected each row to be given once",
    PaddingSeen: "expected scores .* found",
    Unnormalised: "the sums of the probabilities and 1",
    Negative: "expected probabilities, found -",
    Float64: "expected float32, found float64",
    NotANumber: "found NaN",
    TrainingMode: "predict: one input at a time and all together",
    ForgetsTheLastRows: "activations of 'dense1': one input at a time and all together",
    OtherOutput: "predict and the softmax of the last layer",
    OtherWidth: "expected shape",
    AlwaysAll: "asked for 'dense1' alone",
    OtherNeuronsAlone: "activations of 'dense1' alone and with others",
    OtherNumbersEachTime: "gives other numbers the second time",
    OtherGradientEachTime: "gradient: gives other numbers the second time",
    LeavesAHook: "its answers change after",
    ChangesItsInputs: "changed the inputs",
    KeyErrorForLayers: "expected a ModelError, found a KeyError",
    NoErrorForLayers: "expected a ModelError, found an answer",
    ShortDigest: "expected 64 hexadecimal digits",
    OtherDigest: "always the same",
    HiddenGradient: "a gradient of a model without gradients: expected a ModelError",
    GradientsAlone: "expected a model with gradients to provide layers",
    Rounded: "gradient at 'dense1' differs from finite differences",
}


def test_the_healthy_model_keeps_the_contract() -> None:
    check_model(Healthy.make(), np.random.default_rng(0).uniform(size=(8, 4)))


@pytest.mark.parametrize("broken", BROKEN_MODELS, ids=lambda b: b.__name__)
def test_the_contract_of_models_fails(broken: type[Healthy]) -> None:
    with pytest.raises(AssertionError, match=BROKEN_MODELS[broken]):
        check_model(broken.make(), np.random.default_rng(0).uniform(size=(8, 4)))


def test_each_check_of_models_fails_for_a_model() -> None:
    x = np.random.default_rng(0).uniform(size=(8, 4))
    idle = {name for model in (Healthy.make(), HiddenGradient.make()) for name, _ in model_checks(model, x)}
    for broken in BROKEN_MODELS:
        idle -= failures(model_checks(broken.make(), x)).keys()
    assert idle == set()
