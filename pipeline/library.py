"""The doors for Python: texts, frames and files, with and without an event loop of one's own.

The plain functions block, also inside a notebook, whose loop is running already; the twins with `_async` are awaited.
All take `progress=True`, which shows a bar: in a notebook a widget, if ipywidgets are installed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from pipeline.answers import Answers, Prediction
from pipeline.batcher.batcher import Batcher
from pipeline.batcher.cutter import Chunk
from pipeline.batcher.feed import chunks_of
from pipeline.cancellation import every
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.loops import run_blocking
from pipeline.monitoring.progress import SHOW_EVERY_S, Counts, Progress
from pipeline.monitoring.record import RunRecord
from pipeline.runs.first_pass import urls_of
from pipeline.servers.pool import Endpoints
from pipeline.texts import string_array

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "classify_frame",
    "classify_frame_async",
    "classify_texts",
    "classify_texts_async",
    "run",
    "run_async",
]


# -- Frames: which of their values are texts, and what is added to them


def texts_of(frame: pd.DataFrame, text_column: Hashable) -> list[Any]:
    """The values of a column, None where one is missing, whatever the column's type calls that.

    Raises:
        KeyError: no such column. InputError: it is there twice.
    """
    column: Any = frame[text_column]
    if column.ndim != 1:
        raise InputError(f"the frame: {column.shape[1]} columns are called {text_column!r}; rename all but one")
    return [None if gone else value for value, gone in zip(column.tolist(), column.isna(), strict=True)]


def names_to_add(frame: pd.DataFrame, config: Config, num_classes: int) -> list[Any]:
    """The names of the columns that are added, on as many levels as the frame's columns have.

    Raises:
        InputError: the frame has one of them already.
    """
    more = ("",) * (frame.columns.nlevels - 1)
    names = [(name, *more) if more else name for name in AppendedColumns(config, num_classes).names]
    for name in names:
        if name in frame.columns:
            raise InputError(f"the frame: has a column {name!r} already; choose another writer.prefix")
    return names


def with_answers(frame: pd.DataFrame, answers: Answers, config: Config, num_classes: int) -> pd.DataFrame:
    """Return a new frame: the old columns, and those of an output file."""
    import pandas as pd

    names = names_to_add(frame, config, num_classes)
    text: Any = pd.Series(["text"]).dtype  # "str" from pandas 3 on, object before
    types = {pa.string(): text, pa.float64(): "float64", pa.bool_(): bool}
    columns = [
        pd.Series(array.to_pylist(), frame.index, types.get(array.type, object))
        for array in AppendedColumns(config, num_classes).arrays(answers, string_array(answers.labels.names))
    ]
    added = pd.concat(columns, axis=1, keys=range(len(columns)))
    added.columns = pd.MultiIndex.from_tuples(names) if frame.columns.nlevels > 1 else pd.Index(names)
    joined: pd.DataFrame = pd.concat([frame, added], axis=1)
    joined.attrs = dict(frame.attrs)
    return joined


# -- Texts in memory to the server and back


async def answers_to(
    texts: Sequence[Any],
    config: Config,
    progress: Progress,
    *,
    wait: bool = True,
    check: Callable[[int], object] = lambda _: None,
) -> tuple[Answers, int]:
    """Return the answers of `texts`, in their order, and how many classes the model has (0: nothing was sent).

    `check(num_classes)` is called before the first text is sent. Without `wait`, no server is waited for.
    """
    if isinstance(texts, str):
        raise TypeError("texts is a list of strings, not one string")
    # Subclasses of str, numpy's for instance, are no strings to those who write JSON.
    plain = [str.__str__(text) if isinstance(text, str) else text for text in texts]
    if not plain:
        return Answers.none(), 0
    found: dict[int, Answers] = {}

    def store(chunk: Chunk, _: Answers, of_rows: Answers, __: Counts) -> None:
        found[chunk.first_row] = of_rows

    async with urls_of(config) as urls, Endpoints(config, urls, dict(os.environ), progress) as endpoints:
        await endpoints.connect(wait=wait)
        num_classes = endpoints.facts.num_classes
        check(num_classes)
        batcher = Batcher(endpoints, config.request, config.retry, progress, store, failed_allowed=len(plain))
        async with _shown(progress, rows=len(plain)):
            await batcher.run(chunks_of(plain, config.request))
    return Answers.joined([found[first] for first in sorted(found)]), num_classes


@asynccontextmanager
async def _shown(progress: Progress, *, rows: int) -> AsyncIterator[None]:
    """Progress is shown meanwhile."""
    progress.expect(rows, is_exact=True)
    progress.begin()
    showing = asyncio.ensure_future(every(SHOW_EVERY_S, progress.show))
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        progress.end()


# -- The doors for Python: texts, frames and files, with and without an event loop of one's own


def run(config: Config, *, progress: bool = False) -> RunRecord:
    """Classify the file `config.loader.input`, as `classify run` does: resumed, locked, told to whom it may concern.

    Args:
        config: all settings; paths are relative to the working directory.
        progress: show a bar on stderr, or in the notebook.

    Returns:
        The record of the run. Its `exit_code` is 0, or 3 if more rows failed than `config.run.max_failed_rows`.

    Raises:
        ClassifyError: the output is not complete. A UserError needs a person, after NotNow and DeadlineReached the
            same call goes on from where it was; `outcome` says how far that is.

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
    """`run` for those who have a loop. Cancelled, it keeps what was answered.

    >>> import asyncio
    >>> from pipeline import Config, run_async
    >>> asyncio.run(run_async(Config()))
    Traceback (most recent call last):
    pipeline.errors.ConfigError: no input; name one with --input, or with loader.input in a config file
    """
    from pipeline.runs.outcome import run_and_report

    return await run_and_report(config, _progress(progress))


def classify_texts(
    texts: Sequence[str | None], *, url: str | None = None, config: Config | None = None, progress: bool = False
) -> list[Prediction]:
    """The predictions of some texts, in their order.

    Args:
        texts: any number. None and blank ones are not sent, and their prediction has the error `empty`; what is no
            string has the error `not_text`. If there are none, nobody is asked.
        url: the server (default: that of `config`). "embedded" is the built-in language classifier.
        config: everything else; `config.loader`, `config.writer` and `config.run` do not matter.
        progress: show a bar on stderr, or in the notebook.

    Returns:
        One prediction a text: `label`, `score`, `probs` in class order, or `error`.

    Raises:
        ClassifyError: the server is wrongly named, not there, or no classifier.

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
    """`classify_texts` for those who have a loop. Without `wait`, a server that is not there is not waited for.

    >>> import asyncio
    >>> from pipeline import classify_texts_async
    >>> predictions = asyncio.run(classify_texts_async(["Buenos días"], url="embedded"))
    >>> predictions[0].label
    'es'
    """
    answers, _ = await answers_to(texts, _with_url(config, url), _progress(progress), wait=wait)
    return list(answers)


def classify_frame(
    frame: pd.DataFrame,
    text_column: Hashable,
    *,
    url: str | None = None,
    config: Config | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """A copy of `frame` with the columns of an output file added, row by row; its index is kept, whatever it is.

    Args:
        frame: is not changed.
        text_column: its column with the texts. Missing values (None, NaN, NA) and blank texts get the error `empty`,
            what is no string gets `not_text`.
        url: the server (default: that of `config`). "embedded" is the built-in language classifier.
        config: everything else; of `config.writer`, `prefix`, `probs` and `labels` matter as for a file, and so does
            `config.request.too_long`. `config.loader` and `config.run` do not.
        progress: show a bar on stderr, or in the notebook.

    Returns:
        `predicted_label` and `predicted_error` as strings, missing where there is none, `predicted_score` as float64;
        with `probs = "list"` the lists `predicted_probs`, with `"columns"` a float64 column a class; with
        `too_long = "truncate"` the booleans `predicted_truncated`.

    Raises:
        KeyError: no such column.
        InputError: the column is there twice, or one that would be added is there already.
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
    return run_blocking(classify_frame_async(frame, text_column, url=url, config=config, progress=progress))


async def classify_frame_async(
    frame: pd.DataFrame,
    text_column: Hashable,
    *,
    url: str | None = None,
    config: Config | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """`classify_frame` for those who have a loop.

    >>> import asyncio
    >>> import pandas as pd
    >>> from pipeline import classify_frame_async
    >>> frame = pd.DataFrame({"review": ["Je l'ai lu d'une traite."]})
    >>> asyncio.run(classify_frame_async(frame, "review", url="embedded"))["predicted_label"].tolist()
    ['fr']
    """
    config = _with_url(config, url)
    texts = texts_of(frame, text_column)
    names_to_add(frame, config, 0)  # what is known to be there already is refused before anybody is asked
    check = partial(names_to_add, frame, config)
    answers, num_classes = await answers_to(texts, config, _progress(progress), check=check)
    return with_answers(frame, answers, config, num_classes)


def _with_url(config: Config | None, url: str | None) -> Config:
    config = config or Config()
    if url is None:
        return config
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, url=url))


def _progress(wanted: bool) -> Progress:
    return Progress("bar" if wanted else "quiet")
