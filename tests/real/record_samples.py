"""Record what a real vLLM answers, for tests that replay it: `python tests/real/record_samples.py`.

Writes one file for each exchange to tests/samples/vllm-VERSION: the request, and the answer's status, headers, body.
Run it again after a new version of vLLM or of the models; ids, times and the last digits of numbers will differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from serving import MAX_MODEL_LEN, Real, ask, home

SAMPLES = Path(__file__).parents[1] / "samples" / home().name.rpartition(".")[0]
HEADERS = ("content-type", "allow")  # those that a client may look at
JSON = {"Content-Type": "application/json"}

TEXTS = ["the service was great", "awful quality", "café, 你好, привет 😀"]
TOO_LONG = "x z " * MAX_MODEL_LEN

# name: (model, method, path, body)
EXCHANGES: dict[str, tuple[str, str, str, Any]] = {
    "bert": ("tiny-bert", "POST", "/classify", {"input": TEXTS}),
    "bert-one-string": ("tiny-bert", "POST", "/classify", {"input": TEXTS[0]}),
    "bert-no-activation": ("tiny-bert", "POST", "/classify", {"input": TEXTS, "use_activation": False}),
    "bert-truncated": ("tiny-bert", "POST", "/classify", {"input": [TOO_LONG], "truncate_prompt_tokens": -1}),
    "bert-empty-text": ("tiny-bert", "POST", "/classify", {"input": [""]}),
    "bert-models": ("tiny-bert", "GET", "/v1/models", None),
    "qwen": ("tiny-qwen", "POST", "/classify", {"input": TEXTS}),
    "qwen-no-activation": ("tiny-qwen", "POST", "/classify", {"input": TEXTS, "use_activation": False}),
    "error-empty-text": ("tiny-qwen", "POST", "/classify", {"input": ["good", ""]}),
    "error-empty-list": ("tiny-bert", "POST", "/classify", {"input": []}),
    "error-null": ("tiny-bert", "POST", "/classify", {"input": ["good", None]}),
    "error-surrogate": ("tiny-bert", "POST", "/classify", {"input": ["good", "a\ud800b"]}),
    "error-too-long": ("tiny-bert", "POST", "/classify", {"input": ["good", TOO_LONG]}),
    "error-far-too-long": ("tiny-bert", "POST", "/classify", {"input": ["good", TOO_LONG * 20]}),
    "error-unknown-model": ("tiny-bert", "POST", "/classify", {"input": "good", "model": "nope"}),
    "error-wrong-path": ("tiny-bert", "POST", "/v1/classify", {"input": "good"}),
    "error-wrong-method": ("tiny-bert", "GET", "/classify", None),
    "version": ("tiny-bert", "GET", "/version", None),
}


def record(url: str, name: str, method: str, path: str, body: Any) -> None:
    """Ask the server at `url` and write the answer to the file of that name."""
    raw = None if body is None else json.dumps(body).encode()
    answer = ask(url + path, method, raw, JSON)
    sample = {
        "request": {"method": method, "path": path, "body": _shortened(body)},
        "status": answer.status,
        "headers": {header: answer.headers[header] for header in HEADERS if header in answer.headers},
        "body": answer.body,
    }
    # Escaped, so that the file itself is valid although one of the texts is not.
    (SAMPLES / f"{name}.json").write_text(json.dumps(sample, indent=2) + "\n")


def _shortened(body: Any) -> Any:
    """Keep a request readable: a text that is long by repetition is described."""
    if isinstance(body, dict) and isinstance(body["input"], list):
        shorter = [
            f"{text[:8]}... ({len(text)} characters)" if len(text or "") > 100 else text for text in body["input"]
        ]
        return {**body, "input": shorter}
    return body


def main() -> None:
    """Start each model once and record its exchanges."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    for served in ("tiny-bert", "tiny-qwen"):
        with Real("vllm", served) as server:
            for name, (model, method, path, body) in EXCHANGES.items():
                if model == served:
                    record(server.url, name, method, path, body)


if __name__ == "__main__":
    main()
