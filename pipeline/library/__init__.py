"""The doors for Python: texts, frames and files, with and without an event loop of one's own.

The plain functions block, also inside a notebook, whose loop is running already; the twins with `_async` are awaited.
All take `progress=True`, which shows a bar: in a notebook a widget, if ipywidgets are installed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from pipeline.config import Config
from pipeline.loops import blocking
from pipeline.predictions import Prediction
from pipeline.progress import Progress
from pipeline.record import RunRecord

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
    return blocking(run_async(config, progress=progress))


async def run_async(config: Config, *, progress: bool = False) -> RunRecord:
    """`run` for those who have a loop. Cancelled, it keeps what was answered.

    >>> import asyncio
    >>> from pipeline import Config, run_async
    >>> asyncio.run(run_async(Config()))
    Traceback (most recent call last):
    pipeline.errors.ConfigError: no input; name one with --input, or with loader.input in a config file
    """
    from pipeline.runner.reported import run_and_report

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
    return blocking(classify_texts_async(texts, url=url, config=config, progress=progress))


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
    from pipeline.library.texts import answers_to

    predictions, _ = await answers_to(texts, _with_url(config, url), _progress(progress), wait=wait)
    return predictions


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
    return blocking(classify_frame_async(frame, text_column, url=url, config=config, progress=progress))


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
    from pipeline.library.frames import names_to_add, texts_of, with_predictions
    from pipeline.library.texts import answers_to

    config = _with_url(config, url)
    texts = texts_of(frame, text_column)
    names_to_add(frame, config, 0)  # what is known to be there already is refused before anybody is asked
    check = partial(names_to_add, frame, config)
    predictions, num_classes = await answers_to(texts, config, _progress(progress), check=check)
    return with_predictions(frame, predictions, config, num_classes)


def _with_url(config: Config | None, url: str | None) -> Config:
    config = config or Config()
    if url is None:
        return config
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, url=url))


def _progress(wanted: bool) -> Progress:
    return Progress("bar" if wanted else "quiet")
