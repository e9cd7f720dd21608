"""The identity of a run: what must be the same to resume it, from the input's digest to the model's canary answers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.storage.location import Location, local, samples_of

PIPED = "pipe "  # before the digest of an input that came through a pipe
TOLERANCE = 1e-3  # of a canary's numbers: batching moves float32 by less, other weights by more
SERVED_BY = "model.server"  # the kind of server, and its version
COMBINE = "request.combine"  # only of runs that ask for long texts in parts
LONGEST_SHOWN = 80  # characters of a value in a message

Identity = dict[str, Any]


class Difference(NamedTuple):
    """A key of two identities with different values. As text it is what messages say."""

    key: str
    was: object
    now: object

    def __str__(self) -> str:
        return f"{self.key}: was {_shown(self.was)}, now {_shown(self.now)}"


def digest_file(file: Location | Path) -> str:
    """Return the size of a file and a BLAKE2 digest of samples of it, as `SIZE-HEX`, wherever the file is.

    A change between two samples that keeps the size is not seen.

    Raises:
        InputError: the file can't be read. StoreRefused, StoreGone: its store.
    """
    location = file if isinstance(file, Location) else local(str(file))
    try:
        size, samples = samples_of(location)
    except OSError as error:
        raise InputError(f"{location}: {error.strerror}") from None
    digest = hashlib.blake2b(b"".join(samples), digest_size=16).hexdigest()
    return f"{PIPED if location.is_piped else ''}{size}-{digest}"


def was_piped(identity: Mapping[str, Any]) -> bool:
    """Return whether the input came through a pipe, so that it can't be read again."""
    return str(identity["input"]).startswith(PIPED)


def identity_of(config: Config, input_digest: str) -> Identity:
    """Return the identity as far as config and input say it; the model's part is added later, under `model.`."""
    loader, request = config.loader, config.request
    texts: dict[str, Any] = (
        {"loader.template": loader.template} if loader.template else {"loader.text_column": loader.text_columns}
    )
    dialect = {"loader.quoting": loader.quoting, "loader.escape": loader.escape, "loader.header": loader.header}
    # Only what is set: checkpoints of versions before these keys have none of them.
    texts |= {key: value for key, value in dialect.items() if value not in ("double", None, True)}
    split: dict[str, Any] = {}
    if request.too_long == "split":
        split = {COMBINE: request.combine}
        split |= {"request.max_text_chars": request.max_text_chars} if request.max_text_chars else {}
    return {
        "input": input_digest,
        **texts,
        "loader.format": loader.format,
        "loader.encoding": loader.encoding,
        "loader.delimiter": loader.delimiter,
        **({"loader.sheet": loader.sheet} if loader.sheet else {}),
        **({"loader.pair_column": loader.pair_column} if loader.pair_column else {}),
        "loader.on_bad_line": loader.on_bad_line,
        "request.activation": request.activation,
        "request.extra": request.extra,
        **split,
        "server.model": config.server.model,
        "server.model_version": config.server.model_version,
        "probabilities kept": config.writer.needs_probs is not None,
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Return the keys that differ, with both values.

    A fact of the model that only one side has is no difference: it may be learned later. Names of classes may be added
    but not change. Which kind of server answered is kept for people: another one may serve the same model.
    """
    found = []
    for key in dict.fromkeys([*old, *new]):
        was, now = old.get(key), new.get(key)
        if key == SERVED_BY or (key.startswith("model.") and (was is None or now is None)):
            continue
        if not _agree(key, was, now):
            found.append(Difference(key, was, now))
    return found


def _agree(key: str, was: Any, now: Any) -> bool:
    if key == "model.canary":
        pairs = zip(chain(*was), chain(*now), strict=False)
        return [*map(len, was)] == [*map(len, now)] and all(
            math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for one, other in pairs
        )
    if key == "model.names":
        return all(now.get(index, name) == name for index, name in was.items())
    if key == "server.model" and (was is None or now is None):
        return True  # model.id is compared instead
    return bool(was == now)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
