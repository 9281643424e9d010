"""An ONNX model behind MLServer, which shows no more of its answers than it is told to.

MLServer loads this file from the folder of a model; it runs in MLServer's own environment.
"""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """Runs a file of ONNX."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        [given] = payload.inputs
        x = NumpyCodec.decode_input(given).astype(np.float32)
        [p] = self._session.run(None, {self._session.get_inputs()[0].name: x})
        shown = _SHOWN[self.settings.parameters.extra["show"]](p)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("answer", shown)])


def _top_3_rounded(p: np.ndarray) -> np.ndarray:
    rest = np.argsort(-p, axis=1, kind="stable")[:, 3:]
    shown = p.astype(np.float64)
    np.put_along_axis(shown, rest, 0.0, axis=1)
    return np.round(shown, 2)


_SHOWN = {
    "probabilities": lambda p: p,
    "top-3": _top_3_rounded,
    "labels": lambda p: p.argmax(axis=1).astype(np.int64)[:, None],
}
