"""One suite of the wire for the embedded server and two real ones: the same requests get answers of the same shape.

`bert` is an encoder, `qwen` a decoder; where the kind of a model makes a legitimate difference, the test says so.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from serving import START_S, Answer, ask

if TYPE_CHECKING:
    from collections.abc import Mapping

# The first test of a server waits for its start.
REAL = [pytest.mark.real, pytest.mark.time_limit(START_S + 100)]
SERVERS = ["embedded", pytest.param("bert", marks=REAL), pytest.param("qwen", marks=REAL)]
JSON = {"Content-Type": "application/json"}

CLASSIFIED = {
    "id": "str",
    "object": "str",
    "created": "int",
    "model": "str",
    "data": [{"index": "int", "label": "str", "probs": ["float"], "num_classes": "int"}],
    "usage": {
        "prompt_tokens": "int",
        "total_tokens": "int",
        "completion_tokens": "int",
        "prompt_tokens_details": "NoneType",
        "completion_tokens_details": "NoneType",
    },
}
DETAIL = {"detail": "str"}


class Server(NamedTuple):
    """A running server, and what it says of its model."""

    kind: str
    url: str
    model: str
    max_model_len: int

    def classify(self, body: object, headers: Mapping[str, str] = JSON) -> Answer:
        """POST a body to /classify: bytes as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return ask(f"{self.url}/classify", "POST", raw, headers)

    def texts(self, *texts: str, **fields: object) -> list[dict[str, Any]]:
        """Classify texts that the server must accept; return what it says of each."""
        answer = self.classify({"input": texts, **fields})
        assert answer.status == 200, answer.body
        classified: list[dict[str, Any]] = answer.body["data"]
        return classified

    @property
    def too_long(self) -> str:
        """A text somewhat longer than the model takes, in bytes and in tokens."""
        return ("x z " * self.max_model_len)[: 3 * self.max_model_len]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    """Return each of the servers in turn; starts it if it does not run yet."""
    is_embedded = request.param == "embedded"
    url = request.getfixturevalue("embedded_url") if is_embedded else request.getfixturevalue(request.param).url
    (model,) = ask(f"{url}/v1/models").body["data"]
    return Server(request.param, url, model["id"], model["max_model_len"])


def shape(value: object) -> object:
    """Return what a JSON value is made of: its keys, and the names of the types; a list by its distinct elements."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        distinct: list[object] = []
        for each in map(shape, value):
            if each not in distinct:
                distinct.append(each)
        return distinct
    return type(value).__name__


ACCEPTED: dict[str, dict[str, object]] = {
    "one string": {"input": "good"},
    "a list": {"input": ["good", "bad", "nice day"]},
    "any script": {"input": ["café", "你好", "שלום", "😀", "a\u0000b", "e\u0301\u200d"]},
    "only white space": {"input": [" ", "\n"]},
    "no activation": {"input": ["good"], "use_activation": False},
    "truncation that cuts nothing": {"input": ["good"], "truncate_prompt_tokens": -1},
    "the default model by null": {"input": ["good"], "model": None},
    "the default model by the empty name": {"input": ["good"], "model": ""},
    "an unknown field": {"input": ["good"], "surprise": {"deep": [1]}},
    "a removed field": {"input": ["good"], "softmax": False},
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(server: Server, body: dict[str, object]) -> None:
    """What vLLM accepts is answered with the same object by all servers."""
    answer = server.classify(body)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    assert shape(answer.body) == CLASSIFIED
    assert answer.body["id"].startswith("classify-")
    assert answer.body["object"] == "list"
    assert answer.body["model"] == server.model
    assert answer.body["usage"]["total_tokens"] == answer.body["usage"]["prompt_tokens"] > 0
    assert [each["index"] for each in answer.body["data"]] == list(range(len(answer.body["data"])))


class Refused(NamedTuple):
    """A request that is refused: what is sent, and what the answer's `error` says."""

    body: object
    type: str
    message: str = ""
    has_param: bool = False
    status: int = 400


REFUSED = {
    "no text": Refused({"input": []}, "BadRequestError", "You must pass at least one prompt"),
    "null among the texts": Refused({"input": ["good", None]}, "Bad Request", has_param=True),
    "a number among the texts": Refused({"input": ["good", 1]}, "Bad Request", has_param=True),
    "no list": Refused({"input": {"text": "good"}}, "Bad Request", has_param=True),
    "no input": Refused({"model": None}, "Bad Request", has_param=True),
    "no object": Refused(["good"], "Bad Request", has_param=True),
    "no body": Refused(b"", "Bad Request", has_param=True),
    "malformed JSON": Refused(b'{"input": ["good"', "Bad Request", has_param=True),
    "a lone surrogate": Refused({"input": ["good", "a\ud800b"]}, "BadRequestError", "TextEncodeInput must be"),
    "an unknown model": Refused(
        {"input": "good", "model": "nope"}, "NotFoundError", "The model `nope` does not exist.", status=404
    ),
    "a cut below -1": Refused({"input": "good", "truncate_prompt_tokens": -2}, "Bad Request", has_param=True),
    "a cut to nothing": Refused(
        {"input": "good", "truncate_prompt_tokens": 0}, "BadRequestError", "The decoder prompt cannot be empty"
    ),
    "a cut beyond the model": Refused(
        {"input": "good", "truncate_prompt_tokens": 99_999},
        "BadRequestError",
        "truncate_prompt_tokens value is greater than max_model_len.",
    ),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED.keys())
def test_refused(server: Server, refused: Refused) -> None:
    """What vLLM refuses is refused as a whole, with the same status and the same error object, by all servers."""
    assert_refused(server.classify(refused.body), refused)


def assert_refused(answer: Answer, refused: Refused) -> None:
    """Compare an answer with the refusal that was expected."""
    assert answer.status == refused.status, answer.body
    assert shape(answer.body) == {
        "error": {
            "message": "str",
            "type": "str",
            "param": "str" if refused.has_param else "NoneType",
            "code": "int",
        }
    }
    error = answer.body["error"]
    assert (error["code"], error["type"]) == (refused.status, refused.type)
    assert error["message"].startswith(refused.message)


def test_wrong_content_type(server: Server) -> None:
    """A body that is not declared as JSON is refused, a declared character set does not matter."""
    body = {"input": "good"}
    refused = Refused(body, "Bad Request")
    for content_type in ("text/plain", "application/json+classify", "application/x-www-form-urlencoded"):
        answer = server.classify(body, {"Content-Type": content_type})
        assert_refused(answer, refused)
        assert "Only 'application/json' is allowed" in answer.body["error"]["message"]
    assert server.classify(body, {"Content-Type": "Application/JSON; charset=utf-8"}).status == 200


def test_bytes_that_are_not_utf8(server: Server) -> None:
    """A body that is not UTF-8, or is compressed, is refused by the framework in its own shape."""
    answer = server.classify(b'{"input": ["\xff"]}')
    assert (answer.status, answer.body) == (400, {"detail": "There was an error parsing the body"})


def test_empty_text(server: Server) -> None:
    """The empty text is refused where it has no token: BERT's tokenizer adds two, the other two servers' adds none."""
    answer = server.classify({"input": ["good", ""]})
    if server.kind == "bert":
        assert (answer.status, shape(answer.body)) == (200, CLASSIFIED)
    else:
        assert_refused(answer, Refused(None, "BadRequestError", "The decoder prompt cannot be empty"))


def test_token_ids(server: Server) -> None:
    """Lists of token ids are for servers with a vocabulary; the embedded one refuses them as no text."""
    for token_ids in ([5, 6, 7], [[5, 6, 7], [8]]):
        answer = server.classify({"input": token_ids})
        if server.kind == "embedded":
            assert_refused(answer, Refused(None, "Bad Request", has_param=True))
        else:
            assert (answer.status, shape(answer.body)) == (200, CLASSIFIED)


def test_too_long(server: Server) -> None:
    """One text that is too long refuses the request, and the words to know it by are in the message."""
    answer = server.classify({"input": ["good", server.too_long]})
    limit = f"This model's maximum context length is {server.max_model_len} tokens."
    assert_refused(answer, Refused(None, "BadRequestError", limit, has_param=True))
    assert answer.body["error"]["param"] == "input_tokens"


def test_far_too_long(server: Server) -> None:
    """Of a text that is far too long real ones count the characters only, and name another param for it."""
    answer = server.classify({"input": ["good", "x z " * 20 * server.max_model_len]})
    limit = f"This model's maximum context length is {server.max_model_len} tokens."
    assert_refused(answer, Refused(None, "BadRequestError", limit, has_param=True))
    assert answer.body["error"]["param"] == ("input_tokens" if server.kind == "embedded" else "input_text")


def test_truncation(server: Server) -> None:
    """`truncate_prompt_tokens: -1` cuts the text that is too long to the model's length and leaves the others alone."""
    good, cut = server.texts("good", server.too_long, truncate_prompt_tokens=-1)
    assert good["probs"] == pytest.approx(server.texts("good")[0]["probs"], abs=1e-5)
    answer = server.classify({"input": [server.too_long], "truncate_prompt_tokens": -1})
    assert answer.body["usage"]["prompt_tokens"] == server.max_model_len
    assert cut["probs"] == pytest.approx(answer.body["data"][0]["probs"], abs=1e-5)


def test_activation(server: Server) -> None:
    """Probabilities are positive and sum to 1; without activation the same label stands on top of raw scores."""
    texts = ["the service was great", "bad quality", "Das ist ein gutes Produkt"]
    for with_it, without in zip(server.texts(*texts), server.texts(*texts, use_activation=False), strict=True):
        assert sum(with_it["probs"]) == pytest.approx(1, abs=1e-5)
        assert min(with_it["probs"]) >= 0
        assert sum(without["probs"]) != pytest.approx(1, abs=1e-2)
        assert with_it["label"] == without["label"]


def test_many_texts(server: Server) -> None:
    """300 texts come back in order, each as when it is sent alone, and the label is the name of the largest value."""
    texts = [f"{number} is a number and {chr(97 + number % 26)} a letter, señor 你好" for number in range(300)]
    classified = server.texts(*texts)
    assert [each["index"] for each in classified] == list(range(300))
    names: dict[int, set[str]] = {}
    for each in classified:
        assert len(each["probs"]) == each["num_classes"] == classified[0]["num_classes"]
        names.setdefault(each["probs"].index(max(each["probs"])), set()).add(each["label"])
    assert all(len(labels) == 1 for labels in names.values())
    for number in (0, 150, 299):
        (alone,) = server.texts(texts[number])
        assert alone["label"] == classified[number]["label"]
        assert alone["probs"] == pytest.approx(classified[number]["probs"], abs=1e-4)


def test_labels_differ(server: Server) -> None:
    """Different texts get different labels, so that a mixed-up order would show."""
    texts = ["the service was great", "Das ist ein sehr gutes Produkt", "你好世界", "привет, как дела", *"abcdefghij"]
    assert len({each["label"] for each in server.texts(*texts)}) > 1


def test_numbers_are_float32(server: Server) -> None:
    """Every value is a float32 written as a double: cutting it to a float32 changes nothing."""
    for value in server.texts("the service was great")[0]["probs"]:
        assert struct.unpack("f", struct.pack("f", value)) == (value,)


def test_request_id(server: Server) -> None:
    """The id is the caller's if one is given, and the header beats the field."""
    assert server.classify({"input": "good", "request_id": "mine"}).body["id"] == "classify-mine"
    answer = server.classify({"input": "good", "request_id": "mine"}, JSON | {"X-Request-Id": "header"})
    assert answer.body["id"] == "classify-header"


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/classify", 405, "Method Not Allowed"),
        ("POST", "/health", 405, "Method Not Allowed"),
        ("POST", "/v1/models", 405, "Method Not Allowed"),
        ("POST", "/v1/classify", 404, "Not Found"),
        ("GET", "/nowhere", 404, "Not Found"),
        ("GET", "/", 404, "Not Found"),
    ],
)
def test_wrong_address(server: Server, method: str, path: str, status: int, detail: str) -> None:
    """A wrong path or method gets the framework's short answer, not vLLM's error object."""
    answer = ask(server.url + path, method, b'{"input": "good"}' if method == "POST" else None, JSON)
    assert (answer.status, answer.body) == (status, {"detail": detail})
    assert answer.headers["Content-Type"].startswith("application/json")
    assert (answer.headers["Allow"] is not None) == (status == 405)


def test_models(server: Server) -> None:
    """/v1/models lists the one model, with its length; the embedded server leaves vLLM's permissions empty."""
    answer = ask(f"{server.url}/v1/models")
    assert answer.status == 200
    (card,) = answer.body["data"]
    permission = card.pop("permission")
    assert isinstance(permission, list)
    assert shape({**answer.body, "data": [card]}) == {
        "object": "str",
        "data": [
            {
                "id": "str",
                "object": "str",
                "created": "int",
                "owned_by": "str",
                "root": "str",
                "parent": "NoneType",
                "max_model_len": "int",
            }
        ],
    }


def test_health_and_version(server: Server) -> None:
    """/health is 200 without a body, /version one string."""
    health = ask(f"{server.url}/health")
    assert (health.status, health.body) == (200, None)
    version = ask(f"{server.url}/version")
    assert (version.status, shape(version.body)) == (200, {"version": "str"})
