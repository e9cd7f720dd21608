"""Frames: which of their values are texts, and what is added to them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.predictions import Prediction
from pipeline.writer import Layout

# What this pandas makes of strings by itself: "str" from version 3 on, objects before.
TEXT: Any = pd.Series(["text"]).dtype


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
    names = [(name, *more) if more else name for name in Layout(config, num_classes).names]
    for name in names:
        if name in frame.columns:
            raise InputError(f"the frame: has a column {name!r} already; choose another writer.prefix")
    return names


def with_predictions(
    frame: pd.DataFrame, predictions: Sequence[Prediction], config: Config, num_classes: int
) -> pd.DataFrame:
    """A new frame: the old columns, and the predictions of each row."""
    names = names_to_add(frame, config, num_classes)
    columns: list[Any] = [
        pd.Series([each.label for each in predictions], frame.index, TEXT),
        pd.Series([each.score for each in predictions], frame.index, "float64"),
        pd.Series([each.error for each in predictions], frame.index, TEXT),
    ]
    if config.writer.probs == "list":
        lists = [None if each.probs is None else list(each.probs) for each in predictions]
        columns.append(pd.Series(lists, frame.index, object))
    elif config.writer.probs == "columns":
        classes = len(config.writer.labels or ()) or num_classes
        nothing = [np.nan] * classes
        table = np.array([each.probs or nothing for each in predictions], np.float64).reshape(len(frame), classes)
        columns += [pd.Series(column, frame.index) for column in table.T]
    if config.request.too_long == "truncate":
        columns.append(pd.Series([each.truncated for each in predictions], frame.index, bool))
    added = pd.concat(columns, axis=1, keys=range(len(columns)))
    added.columns = pd.MultiIndex.from_tuples(names) if frame.columns.nlevels > 1 else pd.Index(names)
    joined: pd.DataFrame = pd.concat([frame, added], axis=1)
    joined.attrs = dict(frame.attrs)
    return joined
