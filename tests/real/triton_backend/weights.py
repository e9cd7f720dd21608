"""A model of make_models.py that Triton serves; `config.pbtxt` names the folder of weights and tokenizer."""

import json
import os
import sys

sys.path.extend(os.environ["CLASSIFY_SITES"].split(":"))  # with numpy, torch and transformers

import torch
import triton_python_backend_utils as pb_utils
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class TritonPythonModel:
    """What the Python backend looks for."""

    def initialize(self, args):
        """Load the weights."""
        folder = json.loads(args["model_config"])["parameters"]["folder"]["string_value"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def execute(self, requests):
        """Answer each request: texts of the shape [n, 1], values of the shape [n, 3]."""
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "text").as_numpy()) for request in requests]

    def answer(self, texts):
        """Cut the texts that are too long, as the pipeline of transformers does when it is asked to."""
        words = [text.decode() for (text,) in texts]
        with torch.inference_mode():
            tokens = self.tokenizer(words, padding=True, truncation=True, return_tensors="pt")
            values = self.model(**tokens).logits.softmax(-1).numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("probs", values)])
