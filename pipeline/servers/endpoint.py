"""One server: what is sent to it, which model it has, and how we know that model again."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.answers import Answers
from pipeline.config import Config
from pipeline.errors import ClassifyError, ConfigError, Misconfigured, Rejected
from pipeline.monitoring.progress import Progress
from pipeline.servers.client import Client
from pipeline.servers.limiter import Limiter
from pipeline.servers.vllm import ModelEntry, ModelFacts, decode, decode_models, encode, error_of
from pipeline.texts import Texts, escape_all

# Fixed texts whose answers tell models apart, and a sick server from a poisonous row. Short: every model takes them.
CANARY = ("This is great, I love it.", "Terrible. Never again!", "Das Paket kam am Montag an.", "ok")
OK = 200


class Endpoint:
    """One server: its connection, how much it may be asked, and whether it is resting."""

    def __init__(
        self, client: Client, config: Config, facts: ModelFacts, progress: Progress, *, keeps_probs: bool
    ) -> None:
        self.client = client
        self.shown = client.shown
        self.limiter = Limiter(config.request.concurrency)
        self.facts = facts
        self.model: str | None = config.server.model  # as it is sent; None: the server has one and needs no name
        self.entry: ModelEntry | None = None
        self.answers_as = ""  # what its answers call the model, once it was met
        self.is_resting = False  # nothing is sent but the canary
        self.is_doubtful = False  # a connection broke; nothing is sent until the canary says who is there
        self.is_reserved = False  # for one request alone
        self._config, self._progress, self._keeps_probs = config, progress, keeps_probs
        self.examination: asyncio.Future[bool] | None = None

    async def ask(self, texts: Texts, facts: ModelFacts | None = None, *, truncate: bool = False) -> Answers:
        """One attempt at one request.

        Raises:
            RequestFailed, Misconfigured: by what the server did.
        """
        facts = facts or self.facts
        body = encode(texts, self.model, self._config.request, truncate=truncate)
        with self._progress.request(len(texts)):
            reply = await self.client.post(body, facts.largest_answer(len(texts)))
        if reply.status != OK:
            raise error_of(
                reply.status, reply.headers, reply.body, self._config.server.api_key_env, self.client.secrets
            )
        is_canary = facts is not self.facts
        known_as = "" if is_canary else self.answers_as
        answers = decode(reply.body, len(texts), facts, known_as, probs=is_canary or self._keeps_probs)
        if truncate:
            answers.truncated = frozenset(range(len(texts)))
        return answers

    async def ask_canary(self) -> tuple[Answers, ModelFacts]:
        """The fixed texts, and what their answer alone says of the model."""
        facts = ModelFacts()
        return await self.ask(escape_all(CANARY), facts), facts

    async def find_model(self) -> None:
        """Ask `/v1/models`, where there is one: which model it is, unless the config says so.

        Raises:
            Misconfigured: several models and none chosen, or the chosen one is not among them.
        """
        reply = await self.client.get("/v1/models")
        entries = decode_models(reply.body) if reply.status == OK else []
        names = [entry.id for entry in entries]
        if self._config.server.model is None and len(entries) > 1:
            raise Misconfigured(f"{self.shown} serves {', '.join(names)}; choose one with --model")
        if entries and self._config.server.model not in (None, *names):
            raise Misconfigured(
                f"{self.shown} has no model {self._config.server.model!r}; it serves {', '.join(names)}"
            )
        self.entry = next((each for each in entries if self._config.server.model in (None, each.id)), None)
        if self.entry and self._config.server.model is None:
            self.model = self.entry.id

    async def meet(self) -> tuple[dict[str, Any], ModelFacts]:
        """Find the model, ask the canary, and say how this model is known again.

        Raises:
            Misconfigured, ConfigError: wrong address, key, model or labels, or no classifier.
            RequestFailed: sick, or not there.
        """
        await self.find_model()
        try:
            canary, facts = await self.ask_canary()
        except Rejected as error:
            raise Misconfigured(f"{self.shown} refuses even a short text: {error}") from None
        except Misconfigured as error:
            raise Misconfigured(self._not_a_classifier(error)) from None
        self._check_activation(canary)
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

    def say(self, error: ClassifyError) -> str:
        """The error, with the endpoint's address if it does not name it."""
        said = str(error)
        return said if self.shown in said else f"{self.shown}: {said}"

    def _check_activation(self, canary: Answers) -> None:
        """A server that does not know `use_activation` ignores it silently: its logits would be probabilities."""
        rows = canary.probs_or_nan(1)
        if self._config.request.activation or rows.shape[1] == 1:
            return
        if (rows >= 0).all() and (abs(rows.sum(axis=1) - 1) < 1e-3).all():  # noqa: PLR2004
            raise Misconfigured(
                f"{self.shown} ignores use_activation (vLLM knows it from 0.11.2 on): its values are probabilities, "
                f"not logits; leave request.activation = true"
            )

    def _check_labels(self, facts: ModelFacts) -> None:
        """The names that the config gives must be those of the model, all of them and in its order."""
        labels = self._config.writer.labels
        if labels is not None and len(labels) != facts.num_classes:
            raise ConfigError(f"writer.labels names {len(labels)} classes where the model has {facts.num_classes}")
        if labels is not None and any(labels[index] != name for index, name in facts.names.items()):
            raise ConfigError(f"writer.labels says {labels}, the model's answers say {facts.names}; mend writer.labels")

    def _not_a_classifier(self, error: Misconfigured) -> str:
        """A 404 on /classify where /v1/models is healthy has one usual reason: the model generates."""
        if self.entry is None or "HTTP 404" not in str(error):
            return self.say(error)
        return f"{self.shown} serves {self.entry.id}, but not as a classifier ({error})"
