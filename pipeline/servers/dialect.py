"""What a server speaks: the protocol of a dialect, and the dialects there are.

A dialect is bytes in, bytes out: it opens no connection, waits for nothing, and keeps nothing from one call to the
next, so recorded bytes are all that a test of it needs. `client` moves the bytes, `endpoint` decides what is sent,
`pool` to which server; none of the three knows a server by name.

To add a dialect:

1. Write `servers/dialects/NAME.py` with a class that has the members of `Dialect`. `PlainDialect` in
   `servers.dialects.scores` has most of them, and the checks of the usual answers; `servers.refusal` has what most
   servers mean by a status, `servers.model` what is known of a model; `servers.dialects.tei` is an example.
2. Add a line to `DIALECTS`, the name to `Server.api` in `config.sections`, and how the server is recognised to
   `servers.detection`.
3. Record samples of the real server in `tests/samples/`, and test with them; `tests/servers/test_dialect.py` has a
   small dialect with another answer, limits of its own and the model in its path.

A server that names the guilty texts of a request, or says that a request has too many, says so in `refusal`: with
`Rejected.positions` or `Rejected.most_texts`, for the batcher to read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import Misconfigured, RequestFailed
from pipeline.servers.dialects.hf import Hf
from pipeline.servers.dialects.infinity import Infinity
from pipeline.servers.dialects.kserve import Kserve
from pipeline.servers.dialects.oip import Oip
from pipeline.servers.dialects.own_json import OwnJson
from pipeline.servers.dialects.sglang import Sglang
from pipeline.servers.dialects.tei import Tei
from pipeline.servers.dialects.vllm import Vllm
from pipeline.servers.dialects.vllm_binary import VllmBinary
from pipeline.servers.model import Cuts, ModelFacts, Probe, Replies, Served, TakesPairs
from pipeline.texts import Texts


class Dialect(Protocol):
    """How one kind of server is asked, and how its answers are read."""

    name: str  # in the config and in messages
    server: str  # what people call this kind of server
    path: str  # of a request, beside a base URL; `{model}` in it stands for the model's name
    other_paths: tuple[str, ...]  # where such servers take requests, too, so that they are known in a full URL
    headers: Mapping[str, str]  # of every request; `server.headers` may replace them
    cuts: Cuts
    pairs: TakesPairs
    lacks: tuple[str, ...]  # what such servers can't do, in sentences about "it"

    def probes(self, replies: Replies, model: str | None) -> Sequence[Probe]:
        """Return what to ask before the first request, `replies` being what was answered so far; all of it, or more.

        `model` is the one that the config names.
        """

    def served(self, replies: Replies, model: str | None) -> Served:
        """Return what the server announces, once all probes were sent."""

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:
        """Return the body of one request.

        Args:
            texts: at least one, escaped for JSON; pairs only where the dialect takes them.
            model: the name to send; None where the server has one model and needs no name.
            request: what is asked of the model; `request.extra` is sent as it is and may override all but the texts.
            truncate: ask for texts that are too long to be cut to what the model takes.
        """

    def decode(self, body: bytes, texts: int, facts: ModelFacts, model: str = "", *, probs: bool = True) -> Answers:
        """Check the body of a 200, and return the answers in the order of the texts.

        Args:
            body: the answer.
            texts: how many were sent.
            facts: of the model seen so far; learns the number of classes and names of classes from a sound answer.
            model: what the answers of this server call the model; empty if that is not known.
            probs: keep the values of all classes, not only the largest.

        Raises:
            BadAnswer: the answer is broken in itself.
            OtherModel: it is sound, but not of the model in `facts`. Nothing is learned from it.
        """

    def largest_answer(self, texts: int, facts: ModelFacts) -> int:
        """Return how many bytes an honest answer to so many texts has at most."""

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, key_variable: str
    ) -> RequestFailed | Misconfigured:
        """Return the error that a status other than 200 stands for; its class decides what happens next.

        `key_variable` names the environment variable that holds the key, for the message of a refused key.
        """

    def cannot(self, request: Request, canary: Answers) -> str | None:
        """Return what `request` asks for that this server does not do, as the end of a sentence about it, else None.

        A server that ignores what it does not know can be told by its answer to the canary.
        """


DIALECTS: dict[str, Callable[[Request], Dialect]] = {
    "vllm": lambda _: Vllm(),
    "sglang": lambda request: Sglang(is_native=request.activation is not True),
    "tei": lambda _: Tei(),
    "infinity": lambda _: Infinity(),
    "hf": lambda _: Hf(),
    "oip": lambda _: Oip(),
    "kserve": lambda _: Kserve(),
    "json": lambda request: OwnJson(request.field, request.answer),
}
DEFAULT: Dialect = Vllm()
# By the name of a dialect: how the same server answers in fewer bytes, once its classes are known by the usual way.
BINARY: dict[str, Dialect] = {"vllm": VllmBinary()}
