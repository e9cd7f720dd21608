"""The built-in server: vLLM's `/classify` in front of py3langid, which tells the language of a text.

It exists so that a demonstration and every test need no GPU, no download and no second program. To a client it is one
more vLLM: requests, answers and refusals are those of vLLM 0.32 (tests/real/test_vllm_wire.py asks both the same).
It can be another kind of server, too: `embedded_apis` has what they say.
A "token" is one UTF-8 byte here; labels are language codes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import numpy as np
from aiohttp import web
from aiohttp.typedefs import Handler
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline.errors import ConfigError, ServerGone
from pipeline.servers.embedded_apis import APIS, About, Api, Refused

MODEL = "py3langid"

_TEXTS_PER_SLICE = 64  # a few milliseconds of work: how soon a client's disconnect or a shutdown takes effect
_MAX_MODEL_LEN = web.AppKey("max_model_len", int)


class _Request(msgspec.Struct):
    """What we read of a request; all other fields are ignored, as vLLM does."""

    input: str | list[str]
    model: str | None = None
    truncate_prompt_tokens: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    use_activation: bool | None = None
    request_id: str | None = None
    encoding_format: str | None = None  # of /pooling


def make_app(*, max_model_len: int = 8192, api: str = "vllm") -> web.Application:
    """Return the server as an aiohttp application. Loads the model, which takes about half a second.

    `api` is what it speaks, see `embedded_apis.APIS`.
    """
    labels = _language_model(normalised=True).labels
    if api != "vllm":
        return _make_other_app(APIS[api], About(MODEL, labels, max_model_len))
    app = web.Application(client_max_size=1 << 30, middlewares=[_shape_framework_errors])  # vLLM: no limit
    app[_MAX_MODEL_LEN] = max_model_len
    app.router.add_post("/classify", _classify)
    app.router.add_post("/pooling", _pooling)
    app.router.add_get("/v1/models", _models, allow_head=False)
    app.router.add_get("/health", _health, allow_head=False)
    app.router.add_get("/version", _version, allow_head=False)
    return app


def _make_other_app(api: Api, about: About) -> web.Application:
    """Return the application of a server that speaks `api`."""

    async def classify(http: web.Request) -> web.Response:
        try:
            tree = json.loads(await http.read())
            asked = api.asked(tree, about)
            prompts = [_prompt(text, at, about, cuts=asked.cuts) for at, text in enumerate(asked.texts)]
        except (ValueError, RecursionError):
            return web.Response(status=400, text="the body is no JSON")
        except Refused as why:
            status, body = api.refusal(why, about)
            return _reply(body, status)
        scored = await _score_all(prompts, normalised=not asked.logits)
        return _reply(api.answer(tree, [each["probs"] for each in scored], about))

    app = web.Application(client_max_size=1 << 30, middlewares=[_shape_framework_errors])
    for path in filter(None, (api.path, api.other_path)):
        app.router.add_post(path.replace("{model}", about.model), classify)
    for path, body in api.about(about).items():
        app.router.add_get(path, _say(body), allow_head=False)
    for path, body in api.posts_about(about).items():
        app.router.add_post(path, _say(body))
    return app


def _say(body: Any) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return _reply(body)

    return handler


def _prompt(text: str, position: int, about: About, *, cuts: bool) -> bytes:
    """Return a text in "tokens", cut if it may be.

    Raises:
        Refused: it is too long, or holds half a surrogate pair.
    """
    try:
        prompt = text.encode()
    except UnicodeEncodeError:
        raise Refused("broken", position) from None
    if len(prompt) > about.longest and not cuts:
        raise Refused("too_long", position, len(prompt))
    return prompt[: about.longest]


def _reply(body: Any, status: int = 200) -> web.Response:
    """Return a text as it is, all else as JSON."""
    if isinstance(body, str):
        return web.Response(status=status, text=body)
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


async def serve(host: str, port: int, *, api: str = "vllm", on_ready: Callable[[str], None]) -> None:
    """Serve until cancelled, as a server that speaks `api`; call `on_ready` with the base URL once the port is open.

    Port 0 takes a free one.
    """
    runner = web.AppRunner(
        make_app(api=api),
        access_log=None,
        auto_decompress=False,  # vLLM does not either: a compressed body is a bad one
        handler_cancellation=True,  # a client that leaves frees its texts
        keepalive_timeout=5,  # as vLLM: clients have to live with idle connections being closed
        shutdown_timeout=1,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            reason = "it is in use" if getattr(error, "errno", None) == errno.EADDRINUSE else error
            advice = "give another --host or --port (0 takes any free port)"
            raise ConfigError(f"cannot listen on {host}, port {port}: {reason}; {advice}") from error
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def spawned(api: str = "vllm") -> AsyncIterator[str]:
    """Run the server in a process of its own on a free local port; yield its base URL, end it on the way out.

    `api` is what it speaks.

    The process never outlives this one, however this one ends: the kernel then closes our end of its standard input,
    and it watches for that.

    Raises:
        ServerGone: it ends before it listens.
    """
    with tempfile.TemporaryFile() as stderr, _start(stderr, api) as process:
        try:
            url = await asyncio.to_thread(process.stdout.readline)  # type: ignore[union-attr]  # it is a pipe
            if not url:
                await asyncio.to_thread(process.wait)
                stderr.seek(0)
                *_, last_line = stderr.read().decode(errors="replace").splitlines() or ["it said nothing"]
                raise ServerGone(f"the embedded server did not start: {last_line}")
            yield url.decode().strip()
        finally:
            process.terminate()


def main() -> None:
    """Serve on a free local port as the process that `spawned` starts: print the URL, exit when standard input ends.

    The first argument, if there is one, is what to speak.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when we end
    threading.Thread(target=_exit_with_stdin, daemon=True).start()
    api = sys.argv[1] if len(sys.argv) > 1 else "vllm"
    asyncio.run(serve("127.0.0.1", 0, api=api, on_ready=functools.partial(print, flush=True)))


def _start(stderr: IO[bytes], api: str) -> subprocess.Popen[bytes]:
    # The child gets our module search path and nothing before it (-P): else a folder called `pipeline` in the user's
    # working directory would be taken for this package.
    search_path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline.servers.embedded", api],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,  # a file: nobody empties a pipe while the server runs
        env=os.environ | {"PYTHONPATH": search_path},
        start_new_session=True,  # out of reach of Ctrl-C even before main() has come to ignore it
    )


def _exit_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # at once, whatever the other threads do: there is nothing to save


async def _asked(http: web.Request) -> tuple[_Request, list[bytes], list[dict[str, Any]]]:
    request = _parse(http.headers.get("Content-Type", ""), await http.read())
    if request.model and request.model != MODEL:
        raise _refusal(f"The model `{request.model}` does not exist.", kind="NotFoundError")
    prompts = _prompts(request, http.app[_MAX_MODEL_LEN])
    return request, prompts, await _score_all(prompts, normalised=request.use_activation is not False)


async def _pooling(http: web.Request) -> web.Response:
    """Answer in plain numbers; of the forms that the real server has, this is the one that is used here."""
    request, _, scored = await _asked(http)
    if request.encoding_format != "bytes_only":
        raise _refusal("Only encoding_format 'bytes_only' is implemented", param="encoding_format")
    values = np.array([scores["probs"] for scores in scored], "<f4")
    return web.Response(body=values.tobytes(), content_type="application/octet-stream")


async def _classify(http: web.Request) -> web.Response:
    request, prompts, scored = await _asked(http)
    request_id = http.headers.get("X-Request-Id") or request.request_id or uuid.uuid4().hex[:16]
    tokens = sum(map(len, prompts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    answer = {
        "id": f"classify-{request_id}",
        "object": "list",
        "created": int(time.time()),
        "model": MODEL,
        "data": [{"index": index, **scores} for index, scores in enumerate(scored)],
        "usage": usage | {"prompt_tokens_details": None, "completion_tokens_details": None},
    }
    return _json(answer)


def _parse(content_type: str, body: bytes) -> _Request:
    """Read a request, or raise what vLLM answers to one that it can't read."""
    if content_type.lower().partition(";")[0] != "application/json":
        raise _refusal("Unsupported Media Type: Only 'application/json' is allowed", kind="Bad Request")
    try:
        # vLLM reads with this parser too; msgspec's is stricter: no NaN, no lone surrogates.
        return msgspec.convert(json.loads(body), _Request)
    except (json.JSONDecodeError, msgspec.ValidationError) as error:
        message = str(error).partition(" - at ")[0]  # not at which of the texts
        raise _refusal(message, kind="Bad Request", param="body") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or numbers or nesting without end
        raise web.HTTPBadRequest(reason="There was an error parsing the body") from error


def _prompts(request: _Request, max_model_len: int) -> list[bytes]:
    """Return the texts in the "tokens" that count here, cut where asked; one bad text refuses them all."""
    keep = request.truncate_prompt_tokens
    if keep is not None and keep > max_model_len:
        raise _refusal("truncate_prompt_tokens value is greater than max_model_len.")
    texts = [request.input] if isinstance(request.input, str) else request.input
    if not texts:
        raise _refusal("You must pass at least one prompt")
    try:
        prompts = [text.encode()[: max_model_len if keep == -1 else keep] for text in texts]
    except UnicodeEncodeError as error:
        raise _refusal("TextEncodeInput must be text, without lone surrogates") from error
    if not all(prompts):
        raise _refusal("The decoder prompt cannot be empty")
    longest = max(map(len, prompts))
    if longest > max_model_len:
        limit = f"This model's maximum context length is {max_model_len} tokens."
        raise _refusal(f"{limit} However, your prompt contains {longest} input tokens.", param="input_tokens")
    return prompts


@functools.cache
def _language_model(*, normalised: bool) -> LanguageIdentifier:
    """Load py3langid's model; it gives probabilities if `normalised`, else the scores that they are made of."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=normalised)


async def _score_all(prompts: list[bytes], *, normalised: bool) -> list[dict[str, Any]]:
    scored: list[dict[str, Any]] = []
    for start in range(0, len(prompts), _TEXTS_PER_SLICE):
        # In a thread, so that /health answers meanwhile; in slices, because a thread can't be cancelled.
        some = prompts[start : start + _TEXTS_PER_SLICE]
        scored += await asyncio.to_thread(_score, some, normalised=normalised)
    return scored


def _score(prompts: list[bytes], *, normalised: bool) -> list[dict[str, Any]]:
    model = _language_model(normalised=normalised)
    scored = []
    for prompt in prompts:
        ranking = model.rank(prompt.decode(errors="ignore"))  # a cut may have gone through a character
        value_of = dict(ranking)
        probs = [float(np.float32(value_of[label])) for label in model.labels]  # as real ones compute
        scored.append({"label": ranking[0][0], "probs": probs, "num_classes": len(probs)})
    return scored


async def _models(http: web.Request) -> web.Response:
    names = {"id": MODEL, "object": "model", "owned_by": "vllm", "root": MODEL, "parent": None}
    facts = {"created": int(time.time()), "max_model_len": http.app[_MAX_MODEL_LEN], "permission": []}
    return _json({"object": "list", "data": [names | facts]})


async def _health(_: web.Request) -> web.Response:
    return web.Response()


async def _version(_: web.Request) -> web.Response:
    return _json({"version": importlib.metadata.version(MODEL)})


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _refusal(message: str, *, kind: str = "BadRequestError", param: str | None = None) -> web.HTTPException:
    status = web.HTTPNotFound if kind == "NotFoundError" else web.HTTPBadRequest
    error = {"message": message, "type": kind, "param": param, "code": status.status_code}
    return status(text=json.dumps({"error": error}), content_type="application/json")


@web.middleware
async def _shape_framework_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give what aiohttp itself refuses (an unknown path, a wrong method) the shape that vLLM's framework gives it."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.content_type != "application/json":
            error.text = json.dumps({"detail": error.reason})
            error.content_type = "application/json"
        raise


if __name__ == "__main__":
    main()
