"""How other servers than vLLM are spoken to: what the embedded server is, to a client, with `classify serve --api`.

Made from recorded answers and refusals of the real ones (TEI's from its source). An `Api` is bytes in, bytes out, as a
dialect is, from the other end: it reads a request, and words the answer to it. Values come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

Cause = Literal["too_long", "empty", "too_many", "not_understood", "overloaded", "broken"]


class About(NamedTuple):
    """The model, and what the server takes."""

    model: str
    labels: Sequence[str]
    longest: int  # tokens of a text
    texts: int = 32  # in a request
    texts_in_flight: int = 512


class Asked(NamedTuple):
    """What a request asks for."""

    texts: list[str]
    logits: bool = False
    cuts: bool = False  # a text that is too long is cut, not refused


BETWEEN = "\x1f"  # both texts of a pair, in what the model sees


class Refused(Exception):
    """A request that can't be answered: why, and which text it is, where that is known."""

    def __init__(self, cause: Cause, position: int = 0, count: int = 0) -> None:
        super().__init__(cause)
        self.cause: Cause = cause
        self.position, self.count = position, count  # of the guilty text; how many texts or tokens there are


class Api:
    """One way to speak; the parts that the usual ones have in common."""

    name = ""
    path = "/predict"  # of requests; `{model}` is the model's name
    other_path = ""  # of requests in another form
    field = "inputs"  # of the texts
    most_texts: int | None = None  # in a request, where that is the server's own and not announced

    def about(self, about: About) -> Mapping[str, Any]:  # noqa: ARG002
        """Return what the server says of itself, by path: a text as it is, all else as JSON."""
        return {}

    def posts_about(self, about: About) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the same for paths that are posted to."""
        return {}

    def asked(self, tree: Any, about: About) -> Asked:  # noqa: ARG002
        """Read a request.

        Raises:
            Refused: it has another form.
        """
        return Asked(_strings(_member(tree, self.field)))

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:
        """Return the answer to a request, given the values of its texts in class order."""
        raise NotImplementedError

    def refusal(self, why: Refused, about: About) -> tuple[int, Any]:  # noqa: ARG002
        """Return a status, and the body with it: a text as it is, all else as JSON."""
        status = {"overloaded": 503, "broken": 500}.get(why.cause, 400)
        return status, {"error": {"too_long": "the text is too long"}.get(why.cause, "Internal Server Error")}


class TeiApi(Api):
    """text-embeddings-inference 1.9.3."""

    name = "tei"

    def about(self, about: About) -> Mapping[str, Any]:
        """Answer GET /info."""
        names = {str(index): name for index, name in enumerate(about.labels)}
        labels = {"id2label": names, "label2id": {name: int(index) for index, name in names.items()}}
        limits = {"max_client_batch_size": about.texts, "max_concurrent_requests": about.texts_in_flight}
        model = {"model_id": about.model, "model_sha": None, "model_dtype": "float16"}
        info = model | {"model_type": {"classifier": labels}} | limits
        return {"/info": info | {"max_input_length": about.longest, "auto_truncate": True, "version": "1.9.3"}}

    def asked(self, tree: Any, about: About) -> Asked:
        """Take each text from a list of its own; two strings in one are a pair."""
        inputs = _member(tree, "inputs")
        if not isinstance(inputs, list) or any(
            not isinstance(each, list) or len(each) not in (1, 2) for each in inputs
        ):
            raise Refused("not_understood")
        if len(inputs) > about.texts:
            raise Refused("too_many", count=len(inputs))
        cuts = tree.get("truncate", True) is not False
        texts = [each[0] if len(each) == 1 else _joined(each) for each in inputs]
        return Asked(_strings(texts), logits=tree.get("raw_scores") is True, cuts=cuts)

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:  # noqa: ARG002
        """Return lists of pairs."""
        return [_pairs(row, about) for row in rows]

    def refusal(self, why: Refused, about: About) -> tuple[int, Any]:
        """Word it as the backend does."""
        too_long = f"`inputs` must have less than {about.longest} tokens. Given: {why.count}"
        texts: dict[Cause, tuple[int, str, str]] = {
            "too_long": (422, "Validation", f"Input validation error: {too_long}"),
            "too_many": (422, "Validation", f"batch size {why.count} > maximum allowed batch size {about.texts}"),
            "empty": (400, "Empty", "Input validation error: `inputs` cannot be empty"),
            "overloaded": (429, "Overloaded", "Model is overloaded"),
            "broken": (424, "Backend", "Backend error: it failed"),
        }
        if why.cause not in texts:
            return 422, "Failed to deserialize the JSON body into the target type"
        status, kind, message = texts[why.cause]
        return status, {"error": message, "error_type": kind}


class InfinityApi(Api):
    """Infinity 0.0.78; `prefix` is that of its --url-prefix."""

    name = "infinity"
    field = "input"
    most_texts = 2048

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.path = f"{prefix}/classify"

    def about(self, about: About) -> Mapping[str, Any]:
        """Answer GET /models, and the health check."""
        model = {"id": about.model, "object": "model", "owned_by": "infinity", "capabilities": ["classify"]}
        return {f"{self._prefix}/models": {"data": [model], "object": "list"}, "/health": {"unix": 1795994352.8}}

    def asked(self, tree: Any, about: About) -> Asked:  # noqa: ARG002
        """Take a list of strings; texts that are too long are always cut."""
        texts = _strings(_member(tree, "input"))
        if len(texts) > (self.most_texts or 0):
            raise Refused("too_many", count=len(texts))
        return Asked(texts, cuts=True)

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:  # noqa: ARG002
        """Return lists of pairs, in an object."""
        return {"object": "classify", "data": [_pairs(row, about) for row in rows], "model": about.model}

    def refusal(self, why: Refused, about: About) -> tuple[int, Any]:
        """Name the guilty text by its position."""
        if why.cause in ("overloaded", "broken"):
            message = f"model {about.model} is currently overloaded"
            return (429, _nested(message, 429)) if why.cause == "overloaded" else (500, "Internal Server Error")
        kind, place, words = "string_type", ["body", "input", why.position], "Input should be a valid string"
        if why.cause == "too_long":
            kind, words = "string_too_long", "String should have at most 122880 characters"
        elif why.cause == "too_many":
            most = self.most_texts
            words = f"List should have at most {most} items after validation, not {why.count}"
            kind, place = "too_long", place[:2]
        return 422, {"detail": [{"type": kind, "loc": place, "msg": words, "input": "..."}]}


class SglangApi(Api):
    """SGLang 0.5.23."""

    name = "sglang"
    path = "/v1/classify"
    other_path = "/classify"  # the native one: logits, also of pairs
    field = "input"

    def about(self, about: About) -> Mapping[str, Any]:
        """Answer GET /v1/models, and what says more."""
        names = {"id": about.model, "object": "model", "owned_by": "sglang", "root": about.model, "parent": None}
        info = {"model_path": f"./{about.model}", "served_model_name": about.model, "is_generation": False}
        return {
            "/v1/models": {"object": "list", "data": [names | {"max_model_len": about.longest}]},
            "/model_info": info,
            "/server_info": info | {"version": "0.5.23"},
        }

    def asked(self, tree: Any, about: About) -> Asked:
        """Take a list of strings, or in native requests also of pairs."""
        if "text" not in tree:
            return super().asked(tree, about)
        is_pair = tree.get("is_cross_encoder_request") is True
        texts = [_joined(each) if is_pair and isinstance(each, list) else each for each in tree["text"]]
        return Asked(_strings(texts), logits=True)

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:
        """Return values in class order, and the name of the largest; in native answers the values alone."""
        if "text" in tree:
            return [{"embedding": [*row], "meta_info": {"id": "1"}} for row in rows]
        items = [
            {"index": index, "label": about.labels[_best(row)], "probs": [*row], "num_classes": len(row)}
            for index, row in enumerate(rows)
        ]
        return {"id": "classify-1", "object": "list", "created": 1, "model": about.model, "data": items}

    def refusal(self, why: Refused, about: About) -> tuple[int, Any]:
        """Name the guilty text by its position, if it is blank."""
        status = {"overloaded": 503, "broken": 500}.get(why.cause, 400)
        words: dict[Cause, str] = {
            "too_long": f"The input ({why.count} tokens) is longer than the model's context length "
            f"({about.longest} tokens).",
            "empty": f"Input at index {why.position} cannot be empty or whitespace only",
            "overloaded": "The request queue is full.",
        }
        message = words.get(why.cause, "Internal server error: it failed")
        return status, {"object": "error", "message": message, "type": "BadRequestError", "code": status}


class HfApi(Api):
    """huggingface-inference-toolkit 0.5.6 with transformers 4."""

    name = "hf"
    path = "/"

    def about(self, about: About) -> Mapping[str, Any]:  # noqa: ARG002
        """Answer the health check."""
        return {"/health": "Ok", "/": "Ok"}

    def asked(self, tree: Any, about: About) -> Asked:  # noqa: ARG002
        """Take a list of strings, or of objects with two, and the parameters of the pipeline."""
        parameters = tree.get("parameters") or {} if isinstance(tree, dict) else {}
        logits = parameters.get("function_to_apply") == "none"
        inputs = _member(tree, "inputs")
        texts = [
            _joined([each.get("text"), each.get("text_pair")]) if isinstance(each, dict) else each for each in inputs
        ]
        return Asked(_strings(texts), logits=logits, cuts=parameters.get("truncation") is True)

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:
        """Return lists of pairs, sorted or in class order, or the best pair of each text."""
        parameters = tree.get("parameters") or {}
        if parameters.get("return_all_scores"):
            return [_in_order(row, about) for row in rows]
        pairs = [_pairs(row, about) for row in rows]
        return pairs if "top_k" in parameters else [first for first, *_ in pairs]

    def refusal(self, why: Refused, about: About) -> tuple[int, Any]:
        """Say 400 to everything but a gateway's refusals."""
        if why.cause == "overloaded":
            return 503, {"error": "503 Service Unavailable"}
        if why.cause == "too_long":
            sizes = f"tensor a ({why.count}) must match the size of tensor b ({about.longest})"
            return 400, {"error": f"The size of {sizes} at non-singleton dimension 1"}
        return 400, {"error": "it failed"}


class KserveApi(Api):
    """KServe 0.21 with its Hugging Face runtime, started with --return_probabilities (without its rounding)."""

    name = "kserve"
    path = "/v1/models/{model}:predict"
    field = "instances"

    def about(self, about: About) -> Mapping[str, Any]:
        """Answer GET /v1/models."""
        return {"/v1/models": {"models": [about.model]}, f"/v1/models/{about.model}": {"name": about.model}}

    def asked(self, tree: Any, about: About) -> Asked:  # noqa: ARG002
        """Take a list of strings; texts that are too long are always cut."""
        return Asked(_strings(_member(tree, "instances")), cuts=True)

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:  # noqa: ARG002
        """Return objects of class numbers and values."""
        return {"predictions": [{str(index): value for index, value in enumerate(row)} for row in rows]}


class OipApi(Api):
    """The Open Inference Protocol as "mlserver" 1.7.1, "triton" 2.51 or "kserve" 0.21 speaks it."""

    name = "oip"
    path = "/v2/models/{model}/infer"

    def __init__(self, server: str = "mlserver") -> None:
        self._server = server
        self._text = {"mlserver": "array_inputs", "triton": "text", "kserve": "input-0"}[server]

    def about(self, about: About) -> Mapping[str, Any]:
        """Answer for the server, and for the model."""
        version, extensions = {
            "mlserver": ("1.7.1", []),
            "triton": ("2.51.0", ["classification", "model_repository"]),
            "kserve": ("0.21.0", ["model_repository_extension"]),
        }[self._server]
        inputs, outputs = {
            "mlserver": ([_tensor("args", "BYTES", [-1])], [_tensor("outputs", "BYTES", [-1])]),
            "triton": ([_tensor("text", "BYTES", [-1, 1])], [_tensor("probs", "FP32", [-1, len(about.labels)])]),
            "kserve": ([], []),
        }[self._server]
        path = f"/v2/models/{about.model}"
        said = {
            "/v2": {"name": self._server, "version": version, "extensions": extensions},
            path: {"name": about.model, "inputs": inputs, "outputs": outputs},
        }
        if self._server == "triton":
            said[f"{path}/config"] = {"name": about.model, "max_batch_size": about.texts}
        return said | ({"/v2/models": {"models": [about.model]}} if self._server == "kserve" else {})

    def posts_about(self, about: About) -> Mapping[str, Any]:
        """Answer POST /v2/repository/index."""
        index = [{"name": about.model, "state": "READY"}]
        return {} if self._server == "kserve" else {"/v2/repository/index": index}

    def asked(self, tree: Any, about: About) -> Asked:
        """Take the texts from the tensor of their name, and the options of the pipeline from theirs."""
        tensors = {each["name"]: each["data"] for each in _member(tree, "inputs")}
        if self._text not in tensors:
            raise Refused("not_understood")
        if self._server == "triton" and len(tensors[self._text]) > about.texts:
            raise Refused("too_many", count=len(tensors[self._text]))
        logits = tensors.get("function_to_apply") == ["none"]
        cuts = self._server != "mlserver" or tensors.get("truncation") == [True]
        return Asked(_strings(tensors[self._text]), logits=logits, cuts=cuts)

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:
        """Return one tensor: of JSON, of numbers, or of objects as Python writes them."""
        import json

        wanted = (tree.get("outputs") or [{}])[0].get("parameters", {}).get("classification")
        output: dict[str, Any] = {"name": "output", "datatype": "BYTES", "shape": [len(rows), 1]}
        if self._server == "mlserver":
            output["data"] = [json.dumps(_pairs(row, about), ensure_ascii=False) for row in rows]
        elif self._server == "kserve":
            output["data"] = [str(dict(enumerate(row))) for row in rows]
        elif wanted:
            index_of = {name: index for index, name in enumerate(about.labels)}
            ranked = [_pairs(row, about)[:wanted] for row in rows]
            output |= {"name": "probs", "shape": [len(rows), len(about.labels)]}
            output["data"] = [
                f"{pair['score']:.6f}:{index_of[pair['label']]}:{pair['label']}" for row in ranked for pair in row
            ]
        else:
            output |= {"name": "probs", "datatype": "FP32", "shape": [len(rows), len(about.labels)]}
            output["data"] = [value for row in rows for value in row]
        return {"model_name": about.model, "outputs": [output]}

    def refusal(self, why: Refused, about: About) -> tuple[int, Any]:
        """Say 500 to nearly everything, as MLServer does, or what Triton says."""
        if self._server == "triton" and why.cause == "too_many":
            return 400, {"error": f"inference request batch-size must be <= {about.texts} for '{about.model}'"}
        if self._server == "triton" and why.cause == "overloaded":
            return 503, {"error": "Exceeds maximum queue size"}
        if self._server == "mlserver" and why.cause != "overloaded":
            return 500, "Internal Server Error"
        return super().refusal(why, about)


class OwnJsonApi(Api):
    """A server as people write it: {"inputs": [text]} -> {"predictions": [{label: score}]}."""

    name = "json"

    def asked(self, tree: Any, about: About) -> Asked:  # noqa: ARG002
        """Take a list of strings, and cut what is too long."""
        return Asked(_strings(_member(tree, "inputs")), cuts=True)

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:  # noqa: ARG002
        """Return objects of names and values."""
        return {"predictions": [dict(zip(about.labels, row, strict=True)) for row in rows]}


APIS: dict[str, Api] = {
    api.name: api for api in (TeiApi(), InfinityApi(), SglangApi(), HfApi(), KserveApi(), OipApi(), OwnJsonApi())
}


def _member(tree: Any, name: str) -> Any:
    if not isinstance(tree, dict) or name not in tree:
        raise Refused("not_understood")
    return tree[name]


def _strings(texts: Any) -> list[str]:
    if not isinstance(texts, list) or not texts:
        raise Refused("not_understood")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise Refused("not_understood", position)
    return texts


def _joined(pair: Sequence[Any]) -> Any:
    """Return a pair as the one text that the model sees; what is no pair of strings as it is."""
    return BETWEEN.join(pair) if all(isinstance(each, str) for each in pair) else None


def _best(row: Sequence[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)


def _in_order(row: Sequence[float], about: About) -> list[dict[str, Any]]:
    return [{"label": name, "score": value} for name, value in zip(about.labels, row, strict=True)]


def _pairs(row: Sequence[float], about: About) -> list[dict[str, Any]]:
    """Return the pairs of a text, the largest score first."""
    return sorted(_in_order(row, about), key=lambda pair: -pair["score"])


def _tensor(name: str, kind: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": shape}


def _nested(message: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": None, "param": None, "code": code}}
