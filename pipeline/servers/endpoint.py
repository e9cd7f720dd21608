"""One endpoint: what is sent to it, which model it serves, and how that model is known again."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from pipeline.answers import Answers, Floats
from pipeline.config import Config
from pipeline.errors import (
    BadAnswer,
    ClassifyError,
    Misconfigured,
    OtherModel,
    Overloaded,
    Rejected,
    RequestFailed,
    Unavailable,
)
from pipeline.monitoring.progress import Progress
from pipeline.servers.client import KEEP_ALIVE_S, OK, Client
from pipeline.servers.detection import Found, detect, form_of
from pipeline.servers.dialect import BINARY, DEFAULT, DIALECTS, Dialect
from pipeline.servers.dialects.scores import are_probabilities
from pipeline.servers.limiter import Limiter
from pipeline.servers.model import CANARY, ModelEntry, ModelFacts, Probe, Replies, Served
from pipeline.texts import Texts, escape_all
from pipeline.thresholds import class_names, see_thresholds

NOT_FOUND = 404
LOOKS_LIKE = "; it has the form of "
LARGEST_REPLY = 16 << 20  # bytes of the answer to a probe
# A binary answer does not name its model. One request in so many seconds is answered in JSON, which does; and all of
# them where the latest such answer is older than a connection may idle: until then another server takes its place only
# with the connections broken, and that is seen.
NAMED_EVERY_S = 1.0
NO_BINARY = "gives no binary answers"
BINARY_TYPE = "application/octet-stream"
PROOFS = 3  # attempts to get the same numbers both ways: a server that has other work, too, may round them differently


class Endpoint:
    """One server at one address: its connection, how many requests it may have in flight, and whether it may be asked.

    `facts`, what is known of the model, is shared by all endpoints of a run. Without a `dialect` the server is asked
    what it speaks, when it is identified.
    """

    def __init__(
        self,
        client: Client,
        dialect: Dialect | None,
        config: Config,
        facts: ModelFacts,
        progress: Progress,
        *,
        keeps_probs: bool = True,
    ) -> None:
        self.client = client
        self.shown = client.shown
        self.limiter = Limiter(config.request.concurrency, config.request.manners)
        self.texts_in_flight = 0
        self.facts = facts
        self.model: str | None = config.server.model  # as it is sent; None: the server has one and needs no name
        self.served = Served()
        self.answers_as = ""  # what its answers call the model, once it was identified
        self.binary: Dialect | None = None  # the way to ask for binary answers, once it was seen to give the same
        self._named_at = 0.0  # when the latest request was sent whose answer named the model
        self._is_naming = False  # another such request is under way
        self.is_quarantined = False  # nothing is sent but the canary
        self.is_doubtful = False  # a connection broke, and no canary has passed since: another model may answer
        self.is_reserved = False  # for one request alone
        self.health_check: asyncio.Future[bool] | None = None  # the one under way
        self._config, self._progress, self._keeps_probs = config, progress, keeps_probs
        self._given = client.path if client.path.strip("/") else None  # a full URL, taken as it is
        self._found = None if dialect is None else Found(dialect.name)  # which dialect it is; None: not known
        self._is_identified = False
        self._speak(dialect or DEFAULT)

    def _speak(self, dialect: Dialect) -> None:
        """Send requests in this dialect from now on; what is announced may say how exactly."""
        self._kind = self.dialect = dialect
        self._base = base_of(self.client.path, dialect.path, *dialect.other_paths)

    @property
    def may_be_asked(self) -> bool:
        """Whether rows may be sent to it."""
        return not self.is_quarantined and not self.is_doubtful

    def has_room_for(self, texts: int) -> bool:
        """Return whether a request of so many texts may be sent now."""
        most = self.served.texts_in_flight
        return self.limiter.load < 1 and (
            most is None or not self.texts_in_flight or self.texts_in_flight + texts <= most
        )

    async def ask(self, texts: Texts, facts: ModelFacts | None = None, *, truncate: bool = False) -> Answers:
        """Send one request once.

        Raises:
            RequestFailed, Misconfigured: by what the server did.
        """
        if facts is None and self.binary:
            return await self._ask_for_binary(self.binary, texts, truncate=truncate)
        return await self._ask(self.dialect, texts, facts, truncate=truncate)

    async def _ask_for_binary(self, binary: Dialect, texts: Texts, *, truncate: bool) -> Answers:
        """Ask for an answer in binary, or in JSON where the model has to be named again, or a class to be named."""
        now = time.monotonic()
        age = now - self._named_at
        if age < NAMED_EVERY_S or (self._is_naming and age < KEEP_ALIVE_S):
            answers = await self._ask(binary, texts, truncate=truncate)
            if answers.has_label.all():
                return answers
        self._is_naming = True
        try:
            answers = await self._ask(self.dialect, texts, truncate=truncate, keeps_probs=True)
        finally:
            self._is_naming = False
        self._named_at = max(self._named_at, now)
        self.facts.shown |= classes_shown(answers)
        answers.probs = answers.probs if self._keeps_probs else None
        return answers

    async def _ask(
        self,
        dialect: Dialect,
        texts: Texts,
        facts: ModelFacts | None = None,
        *,
        truncate: bool = False,
        keeps_probs: bool = False,
    ) -> Answers:
        is_canary, facts = facts is not None, facts or self.facts
        body = dialect.encode(texts, self.model, self._config.request, truncate=truncate)
        path = self._path_of(dialect)
        with self._progress.request(len(texts)):
            reply = await self.client.post(path, body, dialect.largest_answer(len(texts), facts))
        if reply.status != OK:
            refusal = dialect.refusal(reply.status, reply.headers, reply.body, self._config.server.api_key_env)
            raise self._with_advice(refusal, path)
        if dialect is not self.dialect and reply.headers.get("Content-Type") != BINARY_TYPE:
            raise BadAnswer(f"the answer is not {BINARY_TYPE}")
        known_as = "" if is_canary else self.answers_as
        keeps_probs |= is_canary or self._keeps_probs
        is_activated = isinstance(self._config.request.activation, str)
        try:
            answers = dialect.decode(reply.body, len(texts), facts, known_as, probs=keeps_probs or is_activated)
        except RequestFailed as error:  # it may quote the answer, where a proxy may have put what it was sent
            form = form_of(reply.body, len(texts)) if is_canary and not self._is_identified else ""
            advice = f"{LOOKS_LIKE}{form}" if form else ""
            raise type(error)(self.client.mask(error.reason) + advice) from None
        if truncate:
            answers.truncated = frozenset(range(len(texts)))
        return answers if is_canary else self.as_asked_for(answers, keeps_probs=keeps_probs)

    def as_asked_for(self, answers: Answers, *, keeps_probs: bool = True) -> Answers:
        """Make probabilities of logits, if the config asks for that."""
        activation = self._config.request.activation
        return activated(answers, activation, keeps_probs=keeps_probs) if isinstance(activation, str) else answers

    def _path_of(self, dialect: Dialect) -> str:
        """Where requests go: the path that was given, as it is, or the usual one beside the base."""
        given = self._given if dialect is self.dialect else None
        path = given or self._base + dialect.path
        return path.replace("{model}", quote(self.model or "", safe="")) if "{" in path else path

    async def ask_canary(self) -> tuple[Answers, ModelFacts]:
        """Send the fixed texts; return the answer as the server gave it, and what it alone says of the model."""
        facts = ModelFacts(names=dict(enumerate(self.served.names)), preferred=self._config.writer.class_names or ())
        try:
            return await self._ask_in_parts(facts, self.served.texts or len(CANARY)), facts
        except Rejected as refused:
            if refused.most_texts is None or refused.most_texts >= len(CANARY):
                raise
            return await self._ask_in_parts(facts, max(1, refused.most_texts)), facts

    async def _ask_in_parts(self, facts: ModelFacts, most: int) -> Answers:
        """Send the canary in requests of so many texts at most: some models take one at a time."""
        parts = [CANARY[start : start + most] for start in range(0, len(CANARY), most)]
        return Answers.joined([await self.ask(escape_all(part), facts) for part in parts])

    async def find_model(self) -> None:
        """Ask what the server announces, and which model it serves, unless the config says so.

        Raises:
            Misconfigured: several models and none chosen, the chosen one is not among them, or it is no classifier.
        """
        wanted = self._config.server.model or model_in(self.client.path, self._kind)
        replies: dict[Probe, bytes | None] = {}
        while probes := [each for each in self._kind.probes(replies, wanted) if each not in replies]:
            replies |= {probe: await self._probe(probe) for probe in probes}
        self._learn(replies, wanted)

    def _learn(self, replies: Replies, wanted: str | None) -> None:
        served = self._kind.served(replies, wanted)
        if self._is_identified and self.served.names and not served.names:
            served = self.served  # what it does not say this time it said before; the canary tells if it is another
        self.served = served
        self.dialect = self._kind if self.served.dialect is None else self.served.dialect
        names = [entry.id for entry in self.served.models]
        bases = [entry.id for entry in self.served.models if entry.parent is None] if len(names) > 1 else names
        if wanted is None and len(names) > 1 and len(bases) != 1:
            raise Misconfigured(f"{self.shown} serves {', '.join(names)}; choose one with --model")
        if names and wanted not in (None, *names):
            raise Misconfigured(f"{self.shown} has no model {wanted!r}; it serves {', '.join(names)}")
        if self._config.request.format == "binary" and self._kind.name not in BINARY:
            advice = 'this is for vLLM alone; set request.format = "json"'
            raise Misconfigured(f"{self.shown} speaks {self._kind.server}, which {NO_BINARY}: {advice}")
        if self.served.problem:
            raise Misconfigured(f"{self.shown} {self.served.problem}")
        self.model = wanted or (bases[0] if bases else None)

    async def _probe(self, probe: Probe) -> bytes | None:
        """Ask the server about itself; return the body of a 200, None if it says nothing.

        Raises:
            RequestFailed: it is too busy to say it, or not there.
        """
        path = self._base + probe.path if probe.path else self._path_of(self.dialect)
        if probe.body is None:
            reply = await self.client.get(path, LARGEST_REPLY)
        else:
            reply = await self.client.post(path, probe.body, LARGEST_REPLY)
        if reply.status == OK:
            return reply.body
        refusal = self.dialect.refusal(reply.status, reply.headers, reply.body, self._config.server.api_key_env)
        is_for_now = isinstance(refusal, Overloaded) or reply.status in (502, 504)
        if isinstance(refusal, RequestFailed) and is_for_now and not probe.is_optional:
            raise refusal
        return None

    @property
    def entry(self) -> ModelEntry | None:
        """What the server says of the model that is asked; None if it lists none."""
        return next((each for each in self.served.models if each.id == self.model), None)

    async def identify(self) -> tuple[dict[str, Any], ModelFacts]:
        """Find the model, ask the canary, and return how this model is known again.

        Raises:
            Misconfigured, ConfigError: wrong address, key, model or labels, no classifier, or one that can't do what
                the config asks for.
            RequestFailed: sick, or not there.
        """
        if self._found is None:
            found = await detect(self.client.get, self.client.path)
            self._speak(DIALECTS[found.name](self._config.request))
            try:
                return await self._identify(found)
            except Misconfigured as error:
                if found.is_busy and error.status in (404, 405):
                    raise Unavailable("it is too busy to say what it is", status=error.status) from None
                raise
        return await self._identify(self._found)

    async def _identify(self, found: Found) -> tuple[dict[str, Any], ModelFacts]:
        try:
            await self.find_model()
            self._see_pairs_taken()
            canary, facts = await self.ask_canary()
        except (BadAnswer, Rejected, Misconfigured) as error:
            raise await self._explained(error, found) from None
        if reason := self.dialect.cannot(self._config.request, canary):
            raise Misconfigured(f"{self.shown} {reason}")
        needed_by = self._config.needs_all_values
        if canary.probs is None and needed_by:
            raise Misconfigured(f"{self.shown} gives only the best class of each text; leave {needed_by}")
        in_parts = self._config.request.too_long == "split"
        if in_parts and 0 < len(facts.names) < facts.num_classes and not self._config.writer.class_names:
            # The class with the largest mean may be one that no answer has named.
            raise Misconfigured(
                f"{self.shown} names only the best class of a text, and of {facts.num_classes} classes "
                f'{len(facts.names)} have a name so far; request.too_long = "split" needs them all: name them in '
                f"writer.labels, in class order, or give the path of the model's config.json there"
            )
        identity = {
            "model.id": self.model or facts.model,
            "model.root": self.entry.root if self.entry else None,
            "model.max_model_len": self.entry.max_model_len if self.entry else None,
            "model.num_classes": facts.num_classes,
            "model.names": {str(index): name for index, name in facts.names.items()},
            "model.order": facts.order,
            "model.server": f"{self.dialect.name} {self.served.version}".strip(),
            "model.cuts": "unseen" if self.dialect.cuts == "unseen" else "seen",
            "model.canary": canary.scores[:, None].tolist() if canary.probs is None else canary.probs.tolist(),
        }
        class_names(self._config.writer, identity)  # those of the config are all of the model's, in its order
        see_thresholds(self._config, identity)
        if self._config.request.format == "binary":
            await self._begin_binary(canary, facts)
        self._found, self._is_identified = found, True
        return identity, facts

    def _see_pairs_taken(self) -> None:
        """See that pairs can be sent, if the config has them.

        Raises:
            Misconfigured: they can't; with what to set instead.
        """
        loader, dialect = self._config.loader, self.dialect
        if loader.pair_column is None or dialect.pairs == "taken":
            return
        kind = f"{self.shown} is a server of the kind {dialect.server}, which takes"
        if dialect.pairs == "for logits":
            raise Misconfigured(
                f'{kind} pairs of texts for logits alone: set request.activation = "softmax", which makes them '
                f"probabilities, and name all classes in writer.labels"
            )
        own = loader.template or "\n".join(f"{{{name}}}" for name in loader.text_columns)
        template = json.dumps(f"{own}\n{{{loader.pair_column}}}", ensure_ascii=False)
        raise Misconfigured(
            f"{kind} no pairs of texts; without loader.pair_column, --set 'loader.template={template}' puts both into "
            f"one text, in the form that the model was trained with"
        )

    async def _begin_binary(self, canary: Answers, facts: ModelFacts) -> None:
        """Ask for binary answers from now on, once the server was seen to give the same ones.

        Raises:
            Misconfigured: it does not.
            RequestFailed: it is sick; or it does not, but did before.
        """
        binary = BINARY[self._kind.name]
        facts.shown, facts.sums_to_one = classes_shown(canary), are_probabilities(canary)
        try:
            await self._compare(binary, canary.probs_or_nan(1), facts)
        except (BadAnswer, Rejected, OtherModel, Misconfigured) as error:
            status = getattr(error, "status", None)
            if status in (401, 403) or (self._is_identified and isinstance(error, RequestFailed)):
                raise
            why = f"HTTP {status} for {self._path_of(binary)}" if status else error
            raise Misconfigured(f'{self.shown} {NO_BINARY} ({why}): set request.format = "json"') from None
        self.binary, self._named_at = binary, time.monotonic()

    async def _compare(self, binary: Dialect, expected: Floats, facts: ModelFacts) -> None:
        """Ask the canary for binary answers, and see that they are those in JSON: the classes, and their order."""
        for _ in range(PROOFS):
            found = (await self._ask(binary, escape_all(CANARY), facts)).probs_or_nan(1)
            if np.allclose(found, expected, rtol=1e-3, atol=1e-6):
                return
            difference = f"{abs(found - expected).max():.2g}"
            expected = (await self._ask(self.dialect, escape_all(CANARY), facts)).probs_or_nan(1)
        raise BadAnswer(f"they differ from those in JSON by up to {difference}")

    async def _explained(self, error: ClassifyError, found: Found) -> ClassifyError:
        """Return what an error means that ends the acquaintance with a server, and what to do."""
        advice = await self._other_dialect(found)
        if isinstance(error, BadAnswer):
            said, form, _ = str(error).partition(LOOKS_LIKE)
            if form and "set server.api" not in advice:  # a guess by the form is better than none
                said, advice = str(error), ""
            return Misconfigured(f"{self.shown}: {said}{advice}") if form or advice else error
        if isinstance(error, Rejected):
            if error.is_doubtful and self._is_identified:
                return Unavailable(error.reason, status=error.status)
            return Misconfigured(f"{self.shown} refuses even a short text: {error}{advice}")
        message, status = self.with_address(error), getattr(error, "status", None)
        if (
            self.entry and status == NOT_FOUND and "used as it is" not in message
        ):  # the usual reason, where the server lists the model
            message = f"{self.shown} serves {self.entry.id}, but not as a classifier ({error})"
        return Misconfigured(message + (advice if status in (None, 404, 405, 415) else ""), status=status)

    async def _other_dialect(self, spoken: Found) -> str:
        """Return how to name the dialect of a server that does not understand ours; empty if that is not known."""
        if self._is_identified:
            return ""
        try:
            found = await detect(self.client.get, self.client.path)
        except RequestFailed:
            return ""
        if found.is_sure and found.name != spoken.name:
            kind = DIALECTS[found.name](self._config.request).server
            return f'; it is a server of the kind {kind}: set server.api = "{found.name}", or "auto"'
        if not spoken.is_sure:
            return f"; it does not say what it is, and was taken for {self.dialect.server}: --api names what it speaks"
        return ""

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
        if refusal.status in (404, 405) and self._given and path_in(path, self._kind) is None:
            usual = self._base.removesuffix("/v1") + self.dialect.path
            return Misconfigured(
                f"HTTP {refusal.status} for {path}: a url with a path is used as it is; try {usual}, or no path",
                status=refusal.status,
            )
        return refusal


def classes_shown(answers: Answers) -> set[int]:
    """Return the classes that alone have the largest value of a text: its label is their name."""
    values = answers.probs_or_nan(1)
    is_largest = values == values.max(axis=1, keepdims=True)
    return set(values.argmax(axis=1)[is_largest.sum(axis=1) == 1].tolist())


def base_of(given: str, *paths: str) -> str:
    """Return what stands before a dialect's path, one of `paths`, in the path of a URL: its other paths begin there.

    "/team/classify" -> "/team" for the path "/classify"; a path that does not end in one of them is a base as a whole.
    """
    given = given.rstrip("/")
    return min((re.sub(f"{_pattern(path)}$", "", given) for path in paths), key=len)


def model_in(given: str, dialect: Dialect) -> str | None:
    """Return the name of the model in the path of a URL, where the dialect's path has one; else None."""
    found = path_in(given, dialect)
    name = found.groupdict().get("model") if found else None
    return None if name in (None, "{model}") else unquote(str(name))


def path_in(given: str, dialect: Dialect) -> re.Match[str] | None:
    """Find a path of the dialect at the end of the path of a URL."""
    patterns = (f"{_pattern(path)}$" for path in (dialect.path, *dialect.other_paths))
    return next((found for pattern in patterns if (found := re.search(pattern, given.rstrip("/")))), None)


def _pattern(path: str) -> str:
    return re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path.rstrip("/")))


def activated(answers: Answers, activation: str, *, keeps_probs: bool) -> Answers:
    """Make probabilities of logits: "softmax" over the classes of a text, or "sigmoid" of each; the labels stay."""
    logits: Floats = answers.probs_or_nan(1)
    if activation == "sigmoid":
        values = np.exp(-np.logaddexp(0, -logits))
    else:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        values = powers / powers.sum(axis=1, keepdims=True)
    return Answers(
        answers.labels,
        answers.ids,
        values.max(axis=1),
        values if keeps_probs else None,
        errors=answers.errors,
        truncated=answers.truncated,
        parts=answers.parts,
    )
