"""What a server speaks: the protocol of a dialect, and the dialects there are.

A dialect is bytes in, bytes out: it opens no connection, waits for nothing, and keeps nothing from one call to the
next, so recorded bytes are all that a test of it needs. `client` moves the bytes, `endpoint` decides what is sent,
`pool` to which server; none of the three knows a server by name.

To add a dialect:

1. Write `servers/NAME.py` with a class that has the members of `Dialect`. `servers.refusal` has what most servers mean
   by a status, `servers.model` what is known of a model; `servers.vllm` is an example.
2. Add a line to `DIALECTS`.
3. Record samples of the real server in `tests/samples/`, and test with them; `tests/servers/test_dialect.py` has a
   small dialect with another answer, limits of its own and the model in its path.

A server that names the guilty texts of a request, or says that a request has too many, says so in `refusal`: as
attributes of a subclass of `Rejected`, for the batcher to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import Misconfigured, RequestFailed
from pipeline.servers.model import ModelFacts, Served
from pipeline.servers.vllm import Vllm
from pipeline.texts import Texts


class Dialect(Protocol):
    """How one kind of server is asked, and how its answers are read."""

    name: str  # in the config and in messages
    path: str  # of a request, beside a base URL; `{model}` in it stands for the model's name
    headers: Mapping[str, str]  # of every request; `server.headers` may replace them
    probes: tuple[str, ...]  # paths beside a base URL that a GET learns something from, in this order

    def served(self, bodies: Mapping[str, bytes]) -> Served:
        """Return what the server announces; `bodies` are those of the probes that were answered with 200, by path."""

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:
        """Return the body of one request.

        Args:
            texts: at least one, escaped for JSON.
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


DIALECTS: dict[str, Dialect] = {each.name: each for each in (Vllm(),)}
DEFAULT = DIALECTS["vllm"]
