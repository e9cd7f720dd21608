"""One endpoint: what is sent to it, which model it serves, and how that model is known again."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote

from pipeline.answers import Answers
from pipeline.config import Config
from pipeline.errors import ClassifyError, ConfigError, Misconfigured, Rejected, RequestFailed
from pipeline.monitoring.progress import Progress
from pipeline.servers.client import OK, Client
from pipeline.servers.dialect import Dialect
from pipeline.servers.limiter import Limiter
from pipeline.servers.model import ModelEntry, ModelFacts, Served
from pipeline.texts import Texts, escape_all

# Fixed texts whose answers tell models apart, and a sick server from a poisonous row. Short: every model takes them.
CANARY = ("This is great, I love it.", "Terrible. Never again!", "Das Paket kam am Montag an.", "ok")
NOT_FOUND = 404


class Endpoint:
    """One server at one address: its connection, how many requests it may have in flight, and whether it may be asked.

    `facts`, what is known of the model, is shared by all endpoints of a run.
    """

    def __init__(
        self,
        client: Client,
        dialect: Dialect,
        config: Config,
        facts: ModelFacts,
        progress: Progress,
        *,
        keeps_probs: bool = True,
    ) -> None:
        self.client, self.dialect = client, dialect
        self.shown = client.shown
        self.limiter = Limiter(config.request.concurrency, config.request.manners)
        self.facts = facts
        self.model: str | None = config.server.model  # as it is sent; None: the server has one and needs no name
        self.served = Served()
        self.answers_as = ""  # what its answers call the model, once it was identified
        self.is_quarantined = False  # nothing is sent but the canary
        self.is_doubtful = False  # a connection broke, and no canary has passed since: another model may answer
        self.is_reserved = False  # for one request alone
        self.health_check: asyncio.Future[bool] | None = None  # the one under way
        self._config, self._progress, self._keeps_probs = config, progress, keeps_probs
        self._given = client.path if client.path.strip("/") else None  # a full URL, taken as it is
        self._base = base_of(client.path, dialect.path)

    @property
    def may_be_asked(self) -> bool:
        """Whether rows may be sent to it."""
        return not self.is_quarantined and not self.is_doubtful

    async def ask(self, texts: Texts, facts: ModelFacts | None = None, *, truncate: bool = False) -> Answers:
        """Send one request once.

        Raises:
            RequestFailed, Misconfigured: by what the server did.
        """
        facts = facts or self.facts
        body = self.dialect.encode(texts, self.model, self._config.request, truncate=truncate)
        path = self._given or self._base + self.dialect.path.replace("{model}", quote(self.model or "", safe=""))
        with self._progress.request(len(texts)):
            reply = await self.client.post(path, body, self.dialect.largest_answer(len(texts), facts))
        if reply.status != OK:
            refusal = self.dialect.refusal(reply.status, reply.headers, reply.body, self._config.server.api_key_env)
            raise self._with_advice(refusal, path)
        is_canary = facts is not self.facts
        known_as = "" if is_canary else self.answers_as
        keeps_probs = is_canary or self._keeps_probs
        try:
            answers = self.dialect.decode(reply.body, len(texts), facts, known_as, probs=keeps_probs)
        except RequestFailed as error:  # it may quote the answer, where a proxy may have put what it was sent
            raise type(error)(self.client.mask(error.reason)) from None
        if truncate:
            answers.truncated = frozenset(range(len(texts)))
        return answers

    async def ask_canary(self) -> tuple[Answers, ModelFacts]:
        """Send the fixed texts; return the answer, and what it alone says of the model."""
        facts = ModelFacts(names=dict(enumerate(self.served.names)))
        return await self.ask(escape_all(CANARY), facts), facts

    async def find_model(self) -> None:
        """Ask what the server announces, and which model it serves, unless the config says so.

        Raises:
            Misconfigured: several models and none chosen, or the chosen one is not among them.
        """
        replies = {path: await self.client.get(self._base + path) for path in self.dialect.probes}
        self.served = self.dialect.served({path: each.body for path, each in replies.items() if each.status == OK})
        names = [entry.id for entry in self.served.models]
        if self._config.server.model is None and len(names) > 1:
            raise Misconfigured(f"{self.shown} serves {', '.join(names)}; choose one with --model")
        if names and self._config.server.model not in (None, *names):
            raise Misconfigured(
                f"{self.shown} has no model {self._config.server.model!r}; it serves {', '.join(names)}"
            )
        if self.entry and self._config.server.model is None:
            self.model = self.entry.id

    @property
    def entry(self) -> ModelEntry | None:
        """What the server says of the model that is asked; None if it lists none."""
        return next((each for each in self.served.models if self._config.server.model in (None, each.id)), None)

    async def identify(self) -> tuple[dict[str, Any], ModelFacts]:
        """Find the model, ask the canary, and return how this model is known again.

        Raises:
            Misconfigured, ConfigError: wrong address, key, model or labels, no classifier, or one that can't do what
                the config asks for.
            RequestFailed: sick, or not there.
        """
        await self.find_model()
        try:
            canary, facts = await self.ask_canary()
        except Rejected as error:
            raise Misconfigured(f"{self.shown} refuses even a short text: {error}") from None
        except Misconfigured as error:
            message = self.with_address(error)
            if (
                self.entry and error.status == NOT_FOUND and "used as it is" not in message
            ):  # the usual reason, where the server lists the model
                message = f"{self.shown} serves {self.entry.id}, but not as a classifier ({error})"
            raise Misconfigured(message, status=error.status) from None
        if reason := self.dialect.cannot(self._config.request, canary):
            raise Misconfigured(f"{self.shown} {reason}")
        self._check_labels(facts)
        identity = {
            "model.id": self.model or facts.model,
            "model.root": self.entry.root if self.entry else None,
            "model.max_model_len": self.entry.max_model_len if self.entry else None,
            "model.num_classes": facts.num_classes,
            "model.names": {str(index): name for index, name in facts.names.items()},
            "model.canary": [] if canary.probs is None else canary.probs.tolist(),
        }
        return identity, facts

    def with_address(self, error: ClassifyError) -> str:
        """Return the error's message, with the address of the endpoint if it does not name it."""
        message = str(error)
        return message if self.shown in message else f"{self.shown}: {message}"

    def _with_advice(self, refusal: RequestFailed | Misconfigured, path: str) -> RequestFailed | Misconfigured:
        """Add to a refusal what only this endpoint knows: whether a key was sent, and where."""
        if refusal.status in (401, 403) and self.client.has_key:
            said = str(refusal).partition("; put the server's key")[0]
            return Misconfigured(
                f"{said}; the key that was sent is refused: correct it, in the environment variable "
                f"{self._config.server.api_key_env} or in server.headers",
                status=refusal.status,
            )
        if refusal.status in (404, 405) and not path.endswith(self.dialect.path):
            usual = self._base.removesuffix("/v1") + self.dialect.path
            return Misconfigured(
                f"HTTP {refusal.status} for {path}: a url with a path is used as it is; try {usual}, or no path",
                status=refusal.status,
            )
        return refusal

    def _check_labels(self, facts: ModelFacts) -> None:
        """Compare the names that the config gives with those of the model: all of them, in its order."""
        labels = self._config.writer.labels
        if labels is not None and len(labels) != facts.num_classes:
            raise ConfigError(f"writer.labels names {len(labels)} classes where the model has {facts.num_classes}")
        if labels is not None and any(labels[index] != name for index, name in facts.names.items()):
            raise ConfigError(f"writer.labels says {labels}, the model's answers say {facts.names}; mend writer.labels")


def base_of(given: str, path: str) -> str:
    """Return what stands before a dialect's `path` in the path of a URL: there are the server's other paths.

    "/team/classify" -> "/team" for the path "/classify"; a path that does not end in it is a base as a whole.
    """
    pattern = re.escape(path.rstrip("/")).replace(re.escape("{model}"), "[^/]+")
    return re.sub(f"{pattern}$", "", given.rstrip("/"))
