"""The Open Inference Protocol (V2): `POST /v2/models/MODEL/infer`, of MLServer, Triton and KServe.

The protocol says how tensors travel, not what those of a text classifier are called. That is learned from what the
server says of itself and of the model; the result is an `OipModel`, which is the dialect that is spoken from then on.
Recorded from MLServer 1.7.1 with mlserver-huggingface, Triton 2.51 and KServe 0.21:

- MLServer takes texts in the tensor `array_inputs`, whatever its metadata says, and the options of Hugging Face's
  pipeline as tensors. Each element of the answer is JSON text again: `[{"label", "score"}, ...]`, sorted by score.
  Nearly every refusal is 500 without words.
- Triton's tensors are the model's own. Texts can be sent if it has one input of strings. The names of classes come
  from its label file, by its extension `classification`: "0.726190:2:positive" is value, index and label. The values
  there have six digits, so it is asked once, with the canary. `max_batch_size` is the limit, and stands in the model's
  config.
- KServe's Hugging Face runtime answers with class numbers, unless it was started with `--return_probabilities`; then
  each element is an object in Python's writing: "{0: 0.8748, 1: 0.0531}".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import BadAnswer, Misconfigured, Rejected, RequestFailed, Unavailable
from pipeline.servers.dialects.kserve import WITHOUT_SCORES, model_names
from pipeline.servers.dialects.scores import Pair, PlainDialect, encode_json, of_items, of_pairs, of_values, read
from pipeline.servers.model import CANARY, Cuts, ModelEntry, ModelFacts, Probe, Replies, Served, decoded
from pipeline.servers.refusal import error_of
from pipeline.texts import Texts, escape_all

SERVER = Probe("/v2")
LISTED = Probe("/v2/models", is_optional=True)
INDEX = Probe("/v2/repository/index", b"{}", is_optional=True)
TOO_MANY = re.compile(rb"batch-size must be <= (\d+)")
OF_A_TEXT = re.compile(rb"failed to parse the request JSON|Unable to parse JSON bytes array")
USUAL_OUTPUTS = ("probabilities", "probs", "scores", "logits", "output", "output-0")
PYTHON_KEY = re.compile(r"(?<=[{ ])(\d+):")
ALL_CLASSES = 99_999  # more than any model has


class Tensor(msgspec.Struct, gc=False):
    """One tensor of an answer; the data are flat."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | str]


class Answer(msgspec.Struct, gc=False):
    """The answer to one request."""

    outputs: list[Tensor]
    model_name: str = ""


class TensorInfo(msgspec.Struct):
    """One tensor of a model."""

    name: str
    datatype: str
    shape: list[int]


class ModelInfo(msgspec.Struct):
    """The answer of `GET /v2/models/MODEL`."""

    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []


class ServerInfo(msgspec.Struct):
    """The answer of `GET /v2`."""

    name: str
    extensions: list[str]
    version: str = ""


class Indexed(msgspec.Struct):
    """A model in the answer of `POST /v2/repository/index`."""

    name: str


class ModelConfig(msgspec.Struct):
    """The answer of Triton's `GET /v2/models/MODEL/config`."""

    max_batch_size: int = 0


_decode = msgspec.json.Decoder(Answer).decode
_decode_pairs = msgspec.json.Decoder(list[Pair] | Pair).decode


class OipModel(PlainDialect):
    """How one model is asked; the members stand in `servers.dialect.Dialect`.

    Args:
        server: the name of the server: "mlserver", "triton", "kserve" or another.
        text: the name of the tensor for the texts.
        is_column: texts are sent in the shape [n, 1], not [n].
        output: the name of the tensor to take of the answer; empty for the first.
    """

    name = "oip"
    path = "/v2/models/{model}/infer"
    cuts: Cuts = "unseen"

    def __init__(self, server: str = "", text: str = "text", output: str = "", *, is_column: bool = False) -> None:
        self._is_mlserver, self._text, self.output, self._is_column = server == "mlserver", text, output, is_column
        shown = {"mlserver": "MLServer", "triton": "Triton", "kserve": "KServe"}
        self.server = shown.get(server, server or "Open Inference Protocol")

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:  # noqa: ARG002
        """Return the body of one request: the texts, and for MLServer the options of the pipeline."""
        shape = [len(texts), 1] if self._is_column else [len(texts)]
        about = encode_json({"name": self._text, "shape": shape, "datatype": "BYTES"})[:-1]
        options = _options(logits=request.activation is not True) if self._is_mlserver else []
        more = b"".join(b"," + encode_json(each) for each in options)
        inputs = b"".join([b'"inputs":[', about, b',"data":[', texts.data[:-1], b"]}", more, b"]"])
        rest: dict[str, Any] = {"outputs": [{"name": self.output}]} if self.output else {}
        rest |= {name: value for name, value in request.extra.items() if name != "inputs"}
        return b"".join([b"{", inputs, b"," if rest else b"", encode_json(rest)[1:]])

    def ask_names(self, model: str) -> Probe:
        """Return the question for the names of all classes, which Triton answers."""
        canary = escape_all(CANARY[:1])  # some models take no more
        extra = {"outputs": [{"name": self.output, "parameters": {"classification": ALL_CLASSES}}]}
        path = self.path.replace("{model}", quote(model, safe=""))
        return Probe(path, self.encode(canary, model, Request(extra=extra)))

    def decode(self, body: bytes, texts: int, facts: ModelFacts, model: str = "", *, probs: bool = True) -> Answers:  # noqa: ARG002
        """Check the tensor, and bring the values into class order."""
        outputs = read(_decode, body).outputs
        tensor = next((each for each in outputs if each.name == self.output), outputs[0] if outputs else None)
        if tensor is None or not texts or len(tensor.data) % texts:
            raise BadAnswer(f"{len(tensor.data) if tensor else 0} values to {texts} texts")
        if tensor.datatype == "BYTES":
            if len(tensor.data) != texts:
                raise BadAnswer(f"{len(tensor.data)} answers to {texts} texts")
            if self._is_mlserver:
                return of_pairs([*map(_pairs, tensor.data)], texts, facts, probs=probs)
            return of_items([*map(_element, tensor.data)], texts, facts, probs=probs)
        if not tensor.datatype.startswith(("FP", "BF")):
            raise BadAnswer(WITHOUT_SCORES)
        if tensor.shape and tensor.shape[0] != texts:
            raise BadAnswer(f"a tensor of the shape {tensor.shape} for {texts} texts")
        try:
            values = np.array(tensor.data, np.float64).reshape(texts, -1)
        except ValueError:
            raise BadAnswer("a tensor of numbers holds text") from None
        return of_values(values, texts, facts, probs=probs)

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, key_variable: str
    ) -> RequestFailed | Misconfigured:
        """Return the error that a status other than 200 stands for."""
        error = error_of(status, headers, body, key_variable)
        if most := TOO_MANY.search(body):
            return Rejected(str(error), status=status, most_texts=int(most[1]))
        if isinstance(error, Unavailable) and OF_A_TEXT.search(body):
            return Rejected(str(error), status=status)
        return error


class Oip(OipModel):
    """The dialect while the model is not known: what is asked of the server, and what its answers say."""

    other_paths: tuple[str, ...] = ("/v2/models/{model}/versions/{version}/infer",)

    def probes(self, replies: Replies, model: str | None) -> Sequence[Probe]:
        """Ask for the server, its models, the model, and the names of its classes, one after the other."""
        server, wanted = decoded(ServerInfo, replies.get(SERVER)), [SERVER, LISTED]
        if LISTED in replies and not model_names(replies[LISTED]):
            wanted.append(INDEX)
        model = model or _only(_names_of_models(replies))
        if SERVER not in replies or model is None:
            return wanted
        about, config = _of_model(model)
        wanted += [about, config] if server and server.name == "triton" else [about]
        if server and "classification" in server.extensions and about in replies:
            found = _speak(server, decoded(ModelInfo, replies[about]))
            if isinstance(found, OipModel) and found.output:
                wanted.append(found.ask_names(model))
        return wanted

    def served(self, replies: Replies, model: str | None) -> Served:
        """Return the models, the names of classes where a server has them, the limit, and how the model is asked."""
        server, names = decoded(ServerInfo, replies.get(SERVER)), _names_of_models(replies)
        models = [ModelEntry(name) for name in names]
        model = model or _only(names)
        if model is None:
            problem = "" if names else "does not list its models; name one with --model"
            return Served(models=models, problem=problem)
        about, config = _of_model(model)
        found = _speak(server, decoded(ModelInfo, replies.get(about)))
        most = decoded(ModelConfig, replies.get(config))
        labels = next((names_of_classes(body) for probe, body in replies.items() if probe.path.endswith("infer")), [])
        return Served(
            models=models,
            names=labels,
            texts=most.max_batch_size if most and most.max_batch_size > 0 else None,
            version=server.version if server else "",
            dialect=found if isinstance(found, OipModel) else None,
            problem=found if isinstance(found, str) else "",
        )


def _options(*, logits: bool) -> list[dict[str, Any]]:
    """Return the options of the pipeline as tensors: all classes, and cut what is too long, which else is a 500."""
    options = [
        ("top_k", "BYTES", "null", "hg_json"),
        ("truncation", "BOOL", True, "raw"),
        *([("function_to_apply", "BYTES", "none", "raw")] if logits else []),
    ]
    return [
        {"name": name, "shape": [1], "datatype": kind, "data": [value], "parameters": {"content_type": content}}
        for name, kind, value, content in options
    ]


def _pairs(element: float | str) -> list[Pair]:
    """Read an element of MLServer's answers; of a model with one class it is the one pair alone."""
    try:
        found = _decode_pairs(str(element))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadAnswer("an element of the answer is no list of labels and scores") from None
    return found if isinstance(found, list) else [found]


def _element(value: float | str) -> Any:
    """Read an element of an answer: JSON, or an object as Python writes it."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(PYTHON_KEY.sub(r'"\1":', value) if value.startswith("{") else value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadAnswer("an element of the answer is no JSON") from None


def _speak(server: ServerInfo | None, model: ModelInfo | None) -> OipModel | str:
    """Return how a model is asked; or why it can't be, as the end of a sentence about the server."""
    name = server.name if server else ""
    if name == "mlserver":
        return OipModel(name, "array_inputs")
    texts = [each for each in (model.inputs if model else []) if each.datatype == "BYTES"]
    if model and model.inputs and len(texts) != 1:
        found = ", ".join(f"{each.name} ({each.datatype})" for each in model.inputs)
        return f"has a model that takes {found}; it must take texts, one tensor of strings: put its tokenizer before it"
    scores = [each.name for each in (model.outputs if model else []) if each.datatype.startswith(("FP", "BF"))]
    output = next((each for each in USUAL_OUTPUTS if each in scores), scores[0] if len(scores) == 1 else "")
    if len(scores) > 1 and not output:
        return f"has a model that gives {', '.join(scores)}; the one with the values of classes must be called logits"
    text = texts[0] if texts else TensorInfo("input-0", "BYTES", [-1])
    return OipModel(name, text.name, output, is_column=len(text.shape) > 1)


def names_of_classes(body: bytes | None) -> list[str]:
    """Return the names in an answer of Triton's extension `classification`; none if it has no label file."""
    try:
        elements = [str(each).split(":", 2) for each in read(_decode, body or b"").outputs[0].data]
        names = {int(index): name for _, index, name in elements}
    except (BadAnswer, IndexError, ValueError):
        return []
    return [names[index] for index in sorted(names)] if sorted(names) == [*range(len(names))] else []


def _names_of_models(replies: Replies) -> list[str]:
    indexed = decoded(list[Indexed], replies.get(INDEX)) or []
    return model_names(replies.get(LISTED)) or [each.name for each in indexed]


def _only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _of_model(model: str) -> tuple[Probe, Probe]:
    path = f"/v2/models/{quote(model, safe='')}"
    return Probe(path), Probe(f"{path}/config", is_optional=True)
