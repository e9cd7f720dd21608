"""A model of three classes that Triton serves: numbers made of the bytes of a text, as those of the tests' fake are."""

import os
import sys
import zlib

sys.path.extend(os.environ["CLASSIFY_SITES"].split(":"))  # with numpy; Triton brings its own Python

import numpy as np
import triton_python_backend_utils as pb_utils

CLASSES = 3


class TritonPythonModel:
    """What the Python backend looks for."""

    def execute(self, requests):
        """Answer each request: texts of the shape [n, 1] or [n], values of the shape [n, 3]."""
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "text").as_numpy()) for request in requests]

    def answer(self, texts):
        """Refuse all of a request with a text that holds a certain word."""
        texts = [(text if isinstance(text, bytes) else text[0]).decode() for text in texts]
        if any("refuse me" in text for text in texts):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("this text is refused"))
        values = np.array([probs_of(text) for text in texts], np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("probs", values)])


def probs_of(text):
    """The values of one text."""
    crc = zlib.crc32(text.encode())
    weights = [1 + (crc >> (7 * index)) % 127 + (crc + index) % 3 for index in range(CLASSES)]
    weights[crc % CLASSES] += 200
    return [weight / sum(weights) for weight in weights]
