"""An ONNX model on MLServer: its runtime class, loaded by MLServer's own interpreter.

It stands alone: the environment that MLServer lives in has none of our packages.
"""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):  # type: ignore[misc, unused-ignore]
    """Serves the file that ``model-settings.json`` names."""

    async def load(self) -> bool:
        """Open the file."""
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the one input through the model."""
        (given,) = payload.inputs
        batch = NumpyCodec.decode_input(given).astype(np.float32)
        (logits,) = self._session.run(["logits"], {given.name: batch})
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output("logits", logits)],
        )
