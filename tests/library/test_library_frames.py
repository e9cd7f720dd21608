"""A frame gets what a file would get, in its own order, and is left as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from fake import FakeServer, label_of, own_values_of, probs_of, refuse, score_of, too_long

from pipeline import Classifier, Config, classify_frame, classify_texts, run
from pipeline.config import Loader, Request, Server, Writer
from pipeline.errors import ConfigError, InputError
from pipeline.servers.model import CANARY

NOBODY = "http://127.0.0.1:1"
TEXTS = ["good", "bad", None, "long", "refused", " ", "good"]
LABELS = ["negative", "neutral", "positive"]


def labelled(frame: pd.DataFrame, fake: FakeServer, column: Any = "text", **writer: Any) -> pd.DataFrame:
    """The frame with its predictions; it is the same as before."""
    before = frame.copy(deep=True)
    made = classify_frame(frame, column, url=fake.url, config=Config(writer=Writer(**writer)))
    pd.testing.assert_frame_equal(frame, before)
    assert list(made.index) == list(frame.index)
    pd.testing.assert_frame_equal(made[list(frame.columns)], before)
    return made


@pytest.mark.parametrize("limit", ["error", "truncate"])
@pytest.mark.parametrize(
    ("probs", "labels"), [("none", None), ("list", None), ("columns", None), ("columns", LABELS), ("list", LABELS)]
)
def test_a_frame_gets_the_columns_of_a_file(
    probs: Literal["none", "list", "columns"],
    labels: list[str] | None,
    limit: Literal["error", "truncate"],
    tmp_path: Path,
    fake: FakeServer,
) -> None:
    """The same names in the same order with the same values as in the Parquet file that a run makes of it."""
    fake.rules.append((lambda text: text == "refused", refuse(400, "no")))
    fake.each = lambda texts: (
        too_long() if "long" in texts and "truncate_prompt_tokens" not in fake.requests[-1].body else None
    )
    frame = pd.DataFrame({"id": range(7), "text": TEXTS})
    frame.to_parquet(tmp_path / "in.parquet")
    config = Config(
        loader=Loader(input=str(tmp_path / "in.parquet")),
        writer=Writer(output=str(tmp_path / "out.parquet"), probs=probs, labels=labels, prefix="x_"),
        server=Server(url=fake.url),
        request=Request(too_long=limit),
    )
    made = classify_frame(frame, "text", config=config)
    run(config)
    there = pd.read_parquet(tmp_path / "out.parquet")
    if probs == "list":  # Parquet's lists are read as arrays
        there["x_probs"] = pd.Series([None if each is None else list(each) for each in there["x_probs"]], dtype=object)
    pd.testing.assert_frame_equal(made, there)
    assert made["x_label"][0] == label_of("good")
    assert made["x_error"].isna().sum() == (3 if limit == "error" else 4)


@pytest.mark.parametrize(
    "index",
    [
        pd.Index([5, 5, 5]),
        pd.Index(["b", "a", "b"], name="key"),
        pd.MultiIndex.from_tuples([("x", 1), ("x", 1), ("y", 2)], names=["one", "two"]),
        pd.date_range("2026-11-23", periods=3),
        pd.Index([np.nan, None, "z"], dtype=object),
    ],
    ids=["doubled", "unsorted", "of two levels", "of times", "with gaps"],
)
def test_rows_are_joined_by_their_place(index: pd.Index, fake: FakeServer) -> None:
    """Whatever the index is, each row gets its own text's answer, and the index stays."""
    frame = pd.DataFrame({"text": ["one", "two", "three"], "n": [1, 2, 3]}, index=index)
    frame.attrs["from"] = "somewhere"
    made = labelled(frame, fake)
    assert made["predicted_label"].tolist() == [label_of(text) for text in ("one", "two", "three")]
    assert made["predicted_score"].tolist() == [score_of(text) for text in ("one", "two", "three")]
    assert made["predicted_error"].isna().all()
    assert made.attrs == {"from": "somewhere"}
    assert type(made.index) is type(frame.index)
    assert made.index.names == frame.index.names


@pytest.mark.parametrize("kind", ["object", "string[python]", "string[pyarrow]", "category", "arrow", "large arrow"])
def test_any_type_of_text_will_do(kind: str, fake: FakeServer) -> None:
    """Objects, pandas' and Arrow's strings and categories: missing is `empty` whatever it is called there."""
    import pyarrow as pa

    dtype: Any = {"arrow": pd.ArrowDtype(pa.string()), "large arrow": pd.ArrowDtype(pa.large_string())}.get(kind, kind)
    frame = pd.DataFrame({"text": pd.Series(["one", None, "two", "one"], dtype=dtype)})
    made = labelled(frame, fake)
    assert made["predicted_label"].tolist()[::2] == [label_of("one"), label_of("two")]
    assert made["predicted_error"][1] == "empty: no text"
    assert made["predicted_score"].isna().tolist() == [False, True, False, False]


def test_what_is_no_text_is_said_of_its_row(fake: FakeServer) -> None:
    """Numbers and lists among texts are `not_text`; None, NaN, NA and NaT are `empty`."""
    values = [
        "one",
        1,
        2.5,
        True,
        ["a"],
        {"b": 1},
        None,
        np.nan,
        pd.NA,
        pd.NaT,
        pd.Timestamp("2026-11-23"),
        np.str_("two"),
    ]
    made = labelled(pd.DataFrame({"text": pd.Series(values, dtype=object)}), fake)
    codes = [None if pd.isna(error) else error.partition(":")[0] for error in made["predicted_error"]]
    assert codes == [None, *["not_text"] * 5, *["empty"] * 4, "not_text", None]
    assert made["predicted_label"].tolist()[::11] == [label_of("one"), label_of("two")]


@pytest.mark.parametrize("kind", ["int64", "float64", "bool", "datetime64[ns]", "category"])
def test_a_column_without_a_text_is_not_sent(kind: str, fake: FakeServer) -> None:
    """The wrong column costs no more than the canary, and every row says what is wrong."""
    frame = pd.DataFrame({"text": pd.Series([0, 1, 1], dtype=kind)})
    made = labelled(frame, fake)
    assert set(fake.texts) == set(CANARY)
    assert made["predicted_error"].str.startswith("not_text: ").all()


@pytest.mark.parametrize("probs", ["none", "list", "columns"])
def test_an_empty_frame_asks_nobody(probs: Literal["none", "list", "columns"]) -> None:
    """It gets its columns, with their types, without any server."""
    frame = pd.DataFrame({"text": pd.Series([], dtype=object), "n": pd.Series([], dtype="int64")})
    config = Config(writer=Writer(probs=probs, labels=LABELS))
    made = classify_frame(frame, "text", url=NOBODY, config=config)
    some = ["probs"] if probs == "list" else [f"prob_{label}" for label in LABELS] if probs == "columns" else []
    added = [f"predicted_{name}" for name in ("label", "score", "error", *some)]
    assert list(made.columns) == ["text", "n", *added]
    assert (len(made), str(made["predicted_score"].dtype), str(made["n"].dtype)) == (0, "float64", "int64")


def test_columns_of_many_levels_and_many_classes(fake: FakeServer) -> None:
    """Names get as many levels as there are; two hundred classes are no strain."""
    fake.labels = tuple(f"class {number}" for number in range(200))
    frame = pd.DataFrame([["one", 1], ["two", 2]], columns=pd.MultiIndex.from_tuples([("a", "text"), ("a", "n")]))
    made = classify_frame(frame, ("a", "text"), url=fake.url, config=Config(writer=Writer(probs="columns")))
    assert made.columns.nlevels == 2
    assert made["predicted_prob_199", ""].tolist() == [probs_of(text, 200)[199] for text in ("one", "two")]
    assert made["a", "n"].tolist() == [1, 2]


# -- refused


@pytest.mark.parametrize("name", ["predicted_label", "predicted_score", "predicted_error"])
def test_a_column_that_is_there_is_refused_at_once(name: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(InputError, match=f"{name}.*writer.prefix"):
        classify_frame(pd.DataFrame({"text": ["a"], name: [1]}), "text", url=NOBODY)


def test_a_column_of_a_class_that_is_there_is_refused(fake: FakeServer) -> None:
    """Which classes there are is known from the canary; no text of the frame is sent."""
    frame = pd.DataFrame({"text": ["a"], "predicted_prob_2": [1]})
    with pytest.raises(InputError, match="predicted_prob_2"):
        labelled(frame, fake, probs="columns")
    assert set(fake.texts) == set(CANARY)


def test_a_column_must_be_there_once() -> None:
    """None of that name is a KeyError as everywhere in pandas; two are a mistake that is named."""
    with pytest.raises(KeyError, match="txt"):
        classify_frame(pd.DataFrame({"text": ["a"]}), "txt", url=NOBODY)
    with pytest.raises(InputError, match="2 columns are called 'text'"):
        classify_frame(pd.DataFrame([["a", "b"]], columns=["text", "text"]), "text", url=NOBODY)


def test_labels_must_be_those_of_the_model(fake: FakeServer) -> None:
    """As for a file: names in another order would give each column another class's values."""
    with pytest.raises(ConfigError, match=r"writer\.labels"):
        labelled(pd.DataFrame({"text": ["a"]}), fake, probs="columns", labels=LABELS[::-1])


def test_thresholds_in_a_frame(fake: FakeServer) -> None:
    """The columns of a file: booleans that may be missing, lists of names, and lists of pairs."""
    fake.values_of = own_values_of
    texts = ["one", None, "two", "three"]
    setting = Writer(min_score=0.8, unsure_label="?", multi_label=0.5, top_k=2, labels=LABELS, prefix="x_")
    made = classify_frame(pd.DataFrame({"text": texts}), "text", url=fake.url, config=Config(writer=setting))
    assert str(made["x_unsure"].dtype) == "boolean"
    assert made["x_unsure"].isna().tolist() == [False, True, False, False]
    assert made["x_labels"][1] is None
    assert made["x_top"][1] is None
    for text, row in zip(texts, made.to_dict("records"), strict=True):
        if text is not None:
            ranked = sorted(zip(LABELS, own_values_of(text), strict=True), key=lambda pair: -pair[1])
            assert row["x_unsure"] == (ranked[0][1] < 0.8)
            assert (row["x_label"] == "?") == row["x_unsure"]
            assert row["x_labels"] == [name for name, value in ranked if value >= 0.5]
            assert row["x_top"] == [{"label": name, "score": value} for name, value in ranked[:2]]
    predictions = classify_texts(texts, url=fake.url, config=Config(writer=setting))
    assert [each.label for each in predictions] == [None if pd.isna(each) else each for each in made["x_label"]]
    assert [each.unsure for each in predictions] == [None if pd.isna(each) else each for each in made["x_unsure"]]
    assert [each.labels for each in predictions] == made["x_labels"].tolist()
    pairs = [top and [(pair["label"], pair["score"]) for pair in top] for top in made["x_top"]]
    assert [each.top for each in predictions] == pairs
    assert "labels=" in repr(predictions[0])
    assert classify_texts([], config=Config(writer=setting)) == []
    empty = classify_frame(pd.DataFrame({"text": pd.Series([], dtype=object)}), "text", config=Config(writer=setting))
    assert [*empty.columns] == [*made.columns]


def test_a_frame_that_has_a_column_of_thresholds(fake: FakeServer) -> None:
    """It is told before a server is asked."""
    frame = pd.DataFrame({"text": ["one"], "predicted_unsure": [1]})
    with pytest.raises(InputError, match="'predicted_unsure' already"):
        classify_frame(frame, "text", url=fake.url, config=Config(writer=Writer(min_score=0.5)))
    assert not fake.texts


@pytest.mark.parametrize("loader", [Loader(pair_column="b"), Loader(template="{a} {b}")], ids=["pair", "template"])
def test_texts_of_several_columns_are_refused(loader: Loader) -> None:
    """A frame is classified by one column; the other one is not left out silently."""
    frame = pd.DataFrame({"a": ["one"], "b": ["two"]})
    with pytest.raises(ConfigError, match="classify_batches"):
        classify_frame(frame, "a", url=NOBODY, config=Config(loader=loader))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Config(writer=Writer(top_k=0)), "writer.top_k"),
        (Config(request=Request(too_long="splitt")), "request.too_long"),  # type: ignore[arg-type]
        (Config(request=Request(rows=-1)), "request.rows"),
    ],
    ids=str,
)
def test_a_config_from_python_is_checked(wrong: Config, said: str) -> None:
    """As one from a file is, before anything is sent."""
    for call in (
        lambda: classify_frame(pd.DataFrame({"text": ["a"]}), "text", url=NOBODY, config=wrong),
        lambda: classify_texts(["a"], url=NOBODY, config=wrong),
        lambda: run(wrong),
        lambda: Classifier(wrong),
    ):
        with pytest.raises(ConfigError, match=said):
            call()
