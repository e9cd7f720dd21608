"""The library: classify files, texts and data frames from Python, with and without an event loop.

The plain functions block, also in a notebook, where a loop is running already; those with `_async` are coroutines.
All take `progress=True`, which shows a bar: in a notebook a widget, if ipywidgets is installed.
"""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pyarrow as pa

from pipeline.answers import Answers, Prediction
from pipeline.batcher.batcher import Batcher
from pipeline.batcher.cutter import Chunk
from pipeline.batcher.feed import chunks_of
from pipeline.cancellation import every
from pipeline.config import Config, checked
from pipeline.errors import ClassifyError, ConfigError, InputError  # noqa: F401 - a public name
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.loops import run_blocking
from pipeline.monitoring.progress import SHOW_EVERY_S, Counts, Progress
from pipeline.monitoring.record import RunRecord
from pipeline.runs.first_pass import urls_of
from pipeline.servers.pool import Endpoints
from pipeline.texts import string_array
from pipeline.thresholds import class_names

if TYPE_CHECKING:
    import pandas as pd


def see_column(frame: pd.DataFrame, text_column: Hashable) -> None:
    """See that the frame has the column.

    Raises:
        KeyError: it has not; the nearest is named.
    """
    if text_column not in frame.columns:
        names = [str(name) for name in frame.columns]
        near = difflib.get_close_matches(str(text_column), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names[:20])}"
        raise KeyError(f"no column {text_column!r}; {hint}")


def names_to_add(frame: pd.DataFrame, config: Config, num_classes: int) -> list[Any]:
    """Return the names of the columns to append, with as many levels as the columns of the frame have.

    Raises:
        InputError: the frame has one of them already.
    """
    names: list[Any] = AppendedColumns(config, num_classes).names
    if (levels := frame.columns.nlevels) > 1:
        names = [(name, *[""] * (levels - 1)) for name in names]
    for name in names:
        if name in frame.columns:
            raise InputError(f"the frame: has a column {name!r} already; choose another writer.prefix")
    return names


class Answered(NamedTuple):
    """The answers of some texts."""

    answers: Answers
    num_classes: int = 0  # of the model; 0: nothing was sent
    sees_cuts: bool = True  # the server says which texts it cut
    names: Sequence[str] = ()  # of all classes, in class order, as far as all are known


def layout_of(config: Config, answered: Answered) -> AppendedColumns:
    """Return the columns of an output file with these answers."""
    return AppendedColumns(config, answered.num_classes, answered.names, sees_cuts=answered.sees_cuts)


def predictions_of(config: Config, answered: Answered) -> list[Prediction]:
    """Return the answers as predictions, with what thresholds make of them."""
    layout, writer = layout_of(config, answered), config.writer
    answers = layout.thresholds.applied(answered.answers)
    found = [each if answered.sees_cuts else each._replace(truncated=None) for each in answers]
    if answers.unsure is not None:
        pairs = zip(found, answers.unsure.tolist(), strict=True)
        found = [each if each.label is None else each._replace(unsure=unsure) for each, unsure in pairs]
    if writer.multi_label is not None:
        lists = layout.thresholds.reached(answers).to_pylist()
        found = [each._replace(labels=labels) for each, labels in zip(found, lists, strict=True)]
    if writer.top_k is not None:
        tops = layout.thresholds.best(answers).to_pylist()
        pairs_of = [None if top is None else [(pair["label"], pair["score"]) for pair in top] for top in tops]
        found = [each._replace(top=top) for each, top in zip(found, pairs_of, strict=True)]
    return found


def with_answers(frame: pd.DataFrame, answered: Answered, config: Config) -> pd.DataFrame:
    """Return a new frame with the columns of `frame` and the appended ones of an output file."""
    import pandas as pd

    text: Any = pd.Series(["text"]).dtype  # "str" from pandas 3 on, object before
    unsure = f"{config.writer.prefix}unsure"  # may be missing
    types = {pa.string(): text, pa.float64(): "float64", pa.int64(): "Int64"}
    types[pa.bool_()] = bool if answered.sees_cuts else object
    layout = layout_of(config, answered)
    answers = layout.thresholds.applied(answered.answers)
    arrays = zip(layout.fields, layout.arrays(answers, string_array(answers.labels.names)), strict=True)
    columns = [
        pd.Series(array.to_pylist(), dtype="boolean" if field.name == unsure else types.get(field.type, object)).array
        for field, array in arrays
    ]
    names = names_to_add(frame, config, answered.num_classes)
    added = pd.DataFrame(dict(zip(names, columns, strict=True)), frame.index)
    joined: pd.DataFrame = pd.concat([frame, added], axis=1)
    joined.attrs = dict(frame.attrs)
    return joined


async def answers_to(
    texts: Sequence[Any],
    config: Config,
    *,
    progress: bool,
    wait: bool = True,
    check: Callable[[int], object] = lambda _: None,
) -> Answered:
    """Return the answers of `texts`, in their order, and what is known of the model.

    `check(num_classes)` is called before the first text is sent. Without `wait`, a server must answer at once.
    """
    if isinstance(texts, str):
        raise TypeError("texts is a list of strings, not one string")
    # The JSON encoder refuses subclasses of str, numpy's for instance.
    plain = [str.__str__(text) if isinstance(text, str) else text for text in texts]
    if not plain:
        return Answered(Answers.none())
    found: dict[int, Answers] = {}
    bar = Progress("bar" if progress else "quiet")

    def store(chunk: Chunk, _: Answers, of_rows: Answers, __: Counts) -> None:
        found[chunk.first_row] = of_rows

    async with urls_of(config) as urls, Endpoints(config, urls, dict(os.environ), bar) as endpoints:
        await endpoints.connect(wait=wait)
        check(endpoints.facts.num_classes)
        batcher = Batcher(endpoints, config.request, config.retry, bar, store, failed_allowed=len(plain))
        bar.expect(len(plain), is_exact=True)
        bar.begin()
        showing = asyncio.ensure_future(every(SHOW_EVERY_S, bar.show))
        try:
            await batcher.run(chunks_of(plain, config.request))
        finally:
            showing.cancel()
            bar.end()
    return answered_by(endpoints, config, found)


def answered_by(endpoints: Endpoints, config: Config, found: Mapping[int, Answers]) -> Answered:
    """Return the answers of chunks, by the first row of each, in order, with what is known of the model."""
    answers = Answers.joined([found[first] for first in sorted(found)]) if found else Answers.none()
    sees_cuts = endpoints.identity["model.cuts"] != "unseen"
    names = class_names(config.writer, endpoints.identity)
    return Answered(answers, endpoints.facts.num_classes, sees_cuts, names)


def run(config: Config, *, progress: bool = False) -> RunRecord:
    """Classify the input `config.loader.input` as `classify run` does, with its checkpoint, lock and notification.

    Args:
        config: all settings; paths are relative to the working directory.
        progress: show a bar on stderr, or in the notebook.

    Returns:
        The record of the run. Its `exit_code` is 0, or 3 if more rows failed than `config.run.max_failed_rows`.

    Raises:
        ClassifyError: the output is not complete. A UserError needs a change; after NotNow and DeadlineReached the
            same call continues. `outcome` has the counts so far.

    >>> from pipeline import Config, run
    >>> from pipeline.config import Loader, Server, Writer
    >>> record = run(
    ...     Config(
    ...         loader=Loader(input="data/reviews.csv", text_column="review"),
    ...         server=Server(url="embedded"),
    ...         writer=Writer(output="out/labelled.csv"),
    ...     )
    ... )
    >>> record.rows, record.rows_failed, record.exit_code
    (204, 0, 0)
    """
    return run_blocking(run_async(config, progress=progress))


async def run_async(config: Config, *, progress: bool = False) -> RunRecord:
    """Run as a coroutine; see `run`. Answers are kept when it is cancelled.

    >>> import asyncio
    >>> from pipeline import Config, run_async
    >>> asyncio.run(run_async(Config()))
    Traceback (most recent call last):
    pipeline.errors.ConfigError: no input; name one with --input, or with loader.input in a config file
    """
    from pipeline.runs.outcome import run_and_report

    return await run_and_report(checked(config), Progress("bar" if progress else "quiet"))


def classify_texts(
    texts: Sequence[str | None], *, url: str | None = None, config: Config | None = None, progress: bool = False
) -> list[Prediction]:
    """Classify texts and return their predictions, in the same order.

    Args:
        texts: any number. None and blank texts are not sent, and get the error `empty`; a value that is no string gets
            the error `not_text`. Without texts no server is used.
        url: the server (default: that of `config`). "embedded" is the built-in language classifier.
        config: all other settings. Of `config.writer`, `labels` and the thresholds are used: `min_score`,
            `unsure_label`, `multi_label` and `top_k`. `config.loader` and `config.run` are not used.
        progress: show a bar on stderr, or in the notebook.

    Returns:
        One prediction a text: `label`, `score`, `probs` in class order, or `error`; and `unsure`, `labels` and `top`
        where `config.writer` asks for them.

    Raises:
        ClassifyError: the server can't be reached, or is no classifier.

    >>> from pipeline import classify_texts
    >>> first, second = classify_texts(["Guten Morgen", None], url="embedded")
    >>> first.label, first.score == max(first.probs)
    ('de', True)
    >>> second.label, second.error
    (None, 'empty: no text')
    """
    return run_blocking(classify_texts_async(texts, url=url, config=config, progress=progress))


async def classify_texts_async(
    texts: Sequence[str | None],
    *,
    url: str | None = None,
    config: Config | None = None,
    progress: bool = False,
    wait: bool = True,
) -> list[Prediction]:
    """Classify texts as a coroutine; see `classify_texts`. Without `wait`, a server must answer at once.

    >>> import asyncio
    >>> from pipeline import classify_texts_async
    >>> predictions = asyncio.run(classify_texts_async(["Buenos días"], url="embedded"))
    >>> predictions[0].label
    'es'
    """
    config = with_url(config, url)
    return predictions_of(config, await answers_to(texts, config, progress=progress, wait=wait))


def classify_frame(
    frame: pd.DataFrame,
    text_column: Hashable,
    *,
    url: str | None = None,
    config: Config | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Return a copy of `frame` with the appended columns of an output file, joined by position, and the same index.

    Args:
        frame: is not changed.
        text_column: its column with the texts. Missing values (None, NaN, NA) and blank texts get the error `empty`,
            a value that is no string gets `not_text`.
        url: the server (default: that of `config`). "embedded" is the built-in language classifier.
        config: all other settings; of `config.writer`, `prefix`, `probs`, `labels` and the thresholds are used as for
            a file. `config.loader` and `config.run` are not used.
        progress: show a bar on stderr, or in the notebook.

    Returns:
        `predicted_label` and `predicted_error` as strings, missing where there is none, `predicted_score` as float64;
        with `probs = "list"` the lists `predicted_probs`, with `"columns"` a float64 column a class; with
        `too_long = "truncate"` the booleans `predicted_truncated`, with `"split"` the numbers `predicted_parts`; with
        `min_score` `predicted_unsure`, missing where there is no label; with `multi_label` and `top_k` the lists
        `predicted_labels` and `predicted_top`.

    Raises:
        KeyError: no such column.
        InputError: two columns have this name, or the frame has a column that would be appended.
        ConfigError: the config has `loader.template` or `pair_column`: a frame is classified by one column.
        ClassifyError: as `classify_texts`.

    >>> import pandas as pd
    >>> from pipeline import classify_frame
    >>> frame = pd.DataFrame({"review": ["Das ist sehr gut.", None]}, index=["x", "y"])
    >>> labelled = classify_frame(frame, "review", url="embedded")
    >>> list(labelled.columns)
    ['review', 'predicted_label', 'predicted_score', 'predicted_error']
    >>> labelled.loc["x", "predicted_label"], labelled.loc["y", "predicted_error"]
    ('de', 'empty: no text')
    """
    see_column(frame, text_column)  # here, where the traceback is short
    return run_blocking(classify_frame_async(frame, text_column, url=url, config=config, progress=progress))


async def classify_frame_async(
    frame: pd.DataFrame,
    text_column: Hashable,
    *,
    url: str | None = None,
    config: Config | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Classify a frame as a coroutine; see `classify_frame`.

    >>> import asyncio
    >>> import pandas as pd
    >>> from pipeline import classify_frame_async
    >>> frame = pd.DataFrame({"review": ["Je l'ai lu d'une traite."]})
    >>> asyncio.run(classify_frame_async(frame, "review", url="embedded"))["predicted_label"].tolist()
    ['fr']
    """
    config = with_url(config, url)
    if key := next((key for key in ("template", "pair_column") if getattr(config.loader, key) is not None), None):
        raise ConfigError(f"loader.{key}: a frame is classified by one column; use classify_batches, or run on a file")
    see_column(frame, text_column)
    column: Any = frame[text_column]
    if column.ndim != 1:
        raise InputError(f"the frame: {column.shape[1]} columns are called {text_column!r}; rename all but one")
    texts = [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
    names_to_add(frame, config, 0)  # refuse columns that are there already before a server is asked
    check = partial(names_to_add, frame, config)
    answered = await answers_to(texts, config, progress=progress, check=check)
    return with_answers(frame, answered, config)


def with_url(config: Config | None, url: str | None) -> Config:
    """Return the config with its values checked, and with another server where one is given."""
    config = config or Config()
    if url is not None:
        config = msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, url=url))
    return checked(config)
