"""Pairs of texts: a premise and its hypothesis, a query and a document, through the dialects that take pairs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command
from fake import LABELS, FakeServer, probs_of, refused
from files import rows_of
from hypothesis import given
from hypothesis import strategies as st
from killing import finish, kill_group, start
from spoken import APIS, dialect_for, sample
from whole_runs import QUICK

from pipeline.batcher.parts import cut
from pipeline.config import Config, Loader, Request, Run, Server, Writer
from pipeline.errors import Misconfigured
from pipeline.monitoring.progress import Progress
from pipeline.runs import run
from pipeline.servers.embedded_apis import BETWEEN, Api, HfApi, SglangApi, TeiApi
from pipeline.servers.model import CANARY, ModelFacts
from pipeline.texts import Position, block_of, escape_pairs

Row = tuple[str | None, str | None]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=BETWEEN), max_size=12)
TAKING = ["tei", "hf", "sglang"]
ROWS: list[Row] = [
    *((f"premise {n % 20}", f"hypothesis {n % 7}") for n in range(60)),
    ("a", '","b'),
    ('a","', "b"),
    ("a]", "[b"),
    ("\\", '"'),
    ("é😀\u2028\x07", "\t"),
    ("é😀\u2028\x07", ","),
    (None, "hypothesis"),
    ("premise", None),
    (" ", "hypothesis"),
    ("premise", ""),
    ("x", "premise"),
    ("premise", "x"),
]


@given(st.lists(st.tuples(TEXT, TEXT), max_size=20))
def test_pairs_are_told_apart_and_come_back(pairs: list[tuple[str, str]]) -> None:
    """Whatever stands in them: distinct pairs have distinct bytes, and JSON reads what was put in."""
    texts = escape_pairs([first for first, _ in pairs], [second for _, second in pairs])
    assert texts.unescaped() == [[*pair] for pair in pairs]
    assert len({*texts}) == len({*pairs})
    assert texts.are_pairs == bool(pairs)
    found, which = texts.distinct(np.ones(len(pairs), bool))
    assert [tuple(found.unescaped()[index]) for index in which.tolist()] == pairs


@given(st.lists(st.tuples(st.none() | TEXT, st.none() | TEXT), max_size=20))
def test_a_pair_without_one_of_its_texts_is_empty(pairs: list[Row]) -> None:
    """A null, nothing, or white space alone, on either side."""
    block = block_of(Position(0, 0, 0), [first for first, _ in pairs], {}, [second for _, second in pairs])
    assert {*block.errors} == {n for n, pair in enumerate(pairs) if any(not (text or "").strip() for text in pair)}
    kept = [[*pair] for n, pair in enumerate(pairs) if n not in block.errors]
    assert [each for n, each in enumerate(block.texts.unescaped()) if n not in block.errors] == kept


@pytest.mark.parametrize(
    ("api", "server", "name"),
    [
        (HfApi(), "huggingface-inference-toolkit-0.5.6", "predict-pair"),
        (SglangApi(), "sglang-0.5.23", "bert3-native-pairs"),
    ],
)
def test_pairs_are_sent_as_real_servers_took_them(api: Api, server: str, name: str) -> None:
    """And what they answered is read."""
    recorded = sample(server, name)
    request = Request(activation="softmax") if api.name == "sglang" else Request()
    with FakeServer(api=api) as fake:
        dialect = dialect_for(api, fake.about, request)
    body = json.loads(dialect.encode(escape_pairs(["a", "c"], ["b", "d"]), None, request))
    assert {key: body[key] for key in recorded.asked if key != "parameters"} == {
        key: value for key, value in recorded.asked.items() if key != "parameters"
    }
    facts = ModelFacts(names=dict(enumerate(LABELS)))
    answers = dialect.decode(recorded.body, 2, facts)
    assert [row.label for row in answers] == ["positive", "negative"]


def source_of(folder: Path, rows: Sequence[Row], kind: str) -> Path:
    """A file with both columns."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(
            pa.table({"n": range(len(rows)), "text": [a for a, _ in rows], "other": [b for _, b in rows]}), path
        )
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"n": n, "text": a, "other": b}) + "\n" for n, (a, b) in enumerate(rows)))
    else:
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["n", "text", "other"], *((n, a, b) for n, (a, b) in enumerate(rows))])
    return path


def classified(folder: Path, rows: Sequence[Row], server: FakeServer, kind: str = "jsonl", **request: Any) -> Path:
    """Run in this process with a pair column; return the output."""
    if server.api is not None and server.api.name == "sglang":
        request.setdefault("activation", "softmax")
    config = Config(
        loader=Loader(input=str(source_of(folder, rows, kind)), pair_column="other"),
        writer=Writer(output=str(folder / f"out.{kind}"), probs="columns", labels=list(LABELS)),
        server=Server(url=server.url, api="auto" if server.api is None else server.api.name, wait_s=20),  # type: ignore[arg-type]
        request=Request(**({"rows": 16, "concurrency": 2} | request)),
        retry=QUICK,
        run=Run(max_failed_rows=9),
    )
    asyncio.run(run(config, Progress("quiet")))
    return folder / f"out.{kind}"


def reference(pair: Row, spoken: str) -> list[float] | None:
    """The values of a row, asked alone; None if it has no pair."""
    if any(not (text or "").strip() for text in pair):
        return None
    values = np.array(probs_of(BETWEEN.join(map(str, pair))))
    if spoken == "sglang":  # what it gives are taken for logits
        powers = np.exp(values - values.max())
        values = powers / powers.sum()
    return [float(value) for value in values]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("spoken", TAKING)
def test_pairs_through_each_dialect_equal_a_reference_row_by_row(spoken: str, kind: str, tmp_path: Path) -> None:
    """Labels and values; equal pairs are sent once in a request, pairs with one equal text are not."""
    with FakeServer(api=APIS[spoken], most_texts=16) as server:
        rows = rows_of(classified(tmp_path, ROWS, server, kind))
        sent = [text for text in server.texts if text not in CANARY]
    for row, pair in zip(rows, ROWS, strict=True):
        values = reference(pair, spoken)
        if values is None:
            assert str(row["predicted_error"]) == "empty: no text"
            assert not row["predicted_label"]
            continue
        assert [float(row[f"predicted_prob_{name}"]) for name in LABELS] == values
        assert row["predicted_label"] == LABELS[values.index(max(values))]
    wanted = {BETWEEN.join(map(str, pair)) for pair in ROWS if reference(pair, spoken)}
    assert {*sent} == wanted


def test_all_dialects_give_the_same_bytes(tmp_path: Path) -> None:
    """Also with requests of other sizes."""
    outputs = []
    for spoken, size in (("tei", 8), ("hf", 32)):
        with FakeServer(api=APIS[spoken], most_texts=size) as server:
            outputs.append(classified(tmp_path / spoken, ROWS, server, max_chars=size * 100).read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("spoken", TAKING)
def test_a_pair_that_is_refused_is_found(spoken: str, tmp_path: Path) -> None:
    """By its position, where the server names it; it costs no other pair."""
    rows: list[Row] = [(f"premise {n}", f"hypothesis {n}") for n in range(40)]
    rows[17] = ("premise", "poison")
    with FakeServer(api=APIS[spoken]) as server:
        server.rules.append((lambda text: "poison" in text, refused(server, "empty", lambda text: "poison" in text)))
        found = rows_of(classified(tmp_path, rows, server))
    assert [n for n, row in enumerate(found) if row["predicted_error"]] == [17]
    assert found[17]["predicted_error"].startswith("rejected: ")


def test_of_a_pair_that_is_too_long_the_first_text_is_cut(tmp_path: Path) -> None:
    """Each part has the whole second text."""
    longest = 60
    long_text = "".join(f"Sentence {n}. " for n in range(20))
    rows: list[Row] = [(long_text, "hypothesis"), ("short", "hypothesis"), ("short", "x" * 90)]
    with FakeServer(api=TeiApi()) as server:
        is_long = lambda text: len(text) > longest  # noqa: E731
        server.rules.append((is_long, refused(server, "too_long", is_long)))
        long, short, hopeless = rows_of(classified(tmp_path, rows, server, too_long="split"))
        parts = [text.partition(BETWEEN) for text in server.answered if text.startswith("Sentence")]
    assert "".join(first for first, _, _ in parts) == rows[0][0]
    assert {second for _, _, second in parts} == {"hypothesis"}
    assert (long["predicted_parts"], short["predicted_parts"], hopeless["predicted_parts"]) == (len(parts), 1, None)
    assert hopeless["predicted_error"].startswith("too_long: ")
    with FakeServer(api=HfApi()) as server:
        (row,) = rows_of(classified(tmp_path / "before", rows[:1], server, too_long="split", max_text_chars=longest))
        assert row["predicted_parts"] == len(cut(str(rows[0][0]), longest))


def test_a_run_of_pairs_that_was_killed_goes_on(tmp_path: Path) -> None:
    """With the bytes of a run without a kill."""
    rows: list[Row] = [(f"premise {n}", f"hypothesis {n}") for n in range(400)]
    with FakeServer(api=TeiApi()) as server:
        whole = classified(tmp_path / "whole", rows, server)
        source = source_of(tmp_path, rows, "jsonl")
        output = tmp_path / "out.jsonl"
        arguments = ["run", "-i", str(source), "-o", str(output), "--url", server.url, "--quiet"]
        settings = [
            "loader.pair_column=other",
            "request.rows=8",
            "writer.probs=columns",
            f"writer.labels={json.dumps(LABELS)}",
        ]
        arguments += [word for each in settings for word in ("--set", each)]
        server.hold_after = server.answered.total() + 200
        process = start(arguments)
        try:
            while server.answered.total() < server.hold_after:
                assert process.poll() is None
        finally:
            kill_group(process)
        server.hold_after = None
        code, errors = finish(arguments)
    assert code == 0, errors
    assert output.read_bytes() == whole.read_bytes()


def test_stored_answers_are_of_both_texts(tmp_path: Path, classify: Command) -> None:
    """A pair with another second text is sent; the text alone, which may look like a pair, is another thing."""
    rows: list[Row] = [(f"premise {n}", "same") for n in range(30)]
    common = ["--quiet", "--set", "run.reuse=answers.sqlite", "--api", "tei"]
    with FakeServer(api=TeiApi()) as server:
        common += ["--url", server.url]
        source_of(tmp_path / "a", rows, "jsonl")
        source_of(tmp_path / "b", [*rows, ("premise 0", "other")], "jsonl")
        pair = ["--set", "loader.pair_column=other"]
        classify("run", "a/in.jsonl", "-o", "a/out.jsonl", *common, *pair)
        server.requests.clear()
        classify("run", "b/in.jsonl", "-o", "b/out.jsonl", *common, *pair)
        assert {*server.texts} - {*CANARY} == {f"premise 0{BETWEEN}other"}
        server.requests.clear()
        classify("run", "a/in.jsonl", "-o", "a/alone.jsonl", *common)
        assert {*server.texts} - {*CANARY} == {first for first, _ in rows}
        told = classify("run", "a/in.jsonl", "-o", "a/alone.jsonl", *common, *pair, expect=2).stderr
        assert "loader.pair_column: was None, now 'other'" in told


def test_mistakes_with_pairs_end_in_a_line(tmp_path: Path, classify: Command, fake: FakeServer) -> None:
    """Servers that take no pairs, with what to type instead; columns that are not there, or are the text's own."""
    source_of(tmp_path, ROWS[:20], "csv")
    run_it = ["run", "in.csv", "-o", "out.csv", "--set", "loader.pair_column=other"]
    told = classify(*run_it, "--url", fake.url, expect=2).stderr
    assert "a server of the kind vLLM, which takes no pairs of texts; without loader.pair_column" in told
    assert fake.requests == []
    typed = told.partition("--set '")[2].partition("'")[0]
    assert typed == 'loader.template="{text}\\n{other}"'
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, "--quiet", "--set", typed)
    assert f"{ROWS[0][0]}\n{ROWS[0][1]}" in fake.texts
    for spoken in APIS.keys() - {*TAKING}:
        with FakeServer(api=APIS[spoken]) as server:
            api = APIS[spoken].name
            told = classify(*run_it, "--url", server.url, "--api", api, "--overwrite", "--restart", expect=2).stderr
            assert "takes no pairs of texts" in told, spoken
            assert {*server.texts} <= {*CANARY}  # a probe of Triton has one
    with FakeServer(api=SglangApi()) as server:
        told = classify(*run_it, "--url", server.url, "--overwrite", "--restart", expect=2).stderr
        assert 'set request.activation = "softmax"' in told
    with FakeServer(api=TeiApi()) as server:
        seen = classify("check", "in.csv", "--set", "loader.pair_column=other", "--url", server.url).stdout
        assert "pairs of text: text with other" in seen
        told = classify("run", "in.csv", "--set", "loader.pair_column=othr", "--url", server.url, expect=2).stderr
        assert "did you mean 'other'?" in told
    for ending in ("csv", "jsonl", "parquet"):
        source_of(tmp_path, ROWS[:20], ending)
        told = classify("check", f"in.{ending}", "--set", "loader.pair_column=nope", "--url", fake.url, expect=2).stderr
        assert "choose another loader.pair_column" in told
    for column in ("text", '""'):
        told = classify("run", "in.csv", "--set", f"loader.pair_column={column}", expect=2).stderr
        assert "loader.pair_column names another column than loader.text_column" in told


def test_a_template_may_make_the_first_text(tmp_path: Path) -> None:
    """Of any columns, the second one's too."""
    with FakeServer(api=TeiApi()) as server:
        config = Config(
            loader=Loader(
                input=str(source_of(tmp_path, [("a", "b"), (None, "b")], "jsonl")),
                template="{text}: {other}",
                pair_column="other",
            ),
            writer=Writer(output=str(tmp_path / "out.jsonl")),
            server=Server(url=server.url),
        )
        asyncio.run(run(config, Progress("quiet")))
        assert {*server.texts} - {*CANARY} == {f"a: b{BETWEEN}b", f": b{BETWEEN}b"}


def test_pairs_that_a_server_takes_for_something_else_stop_the_run(tmp_path: Path) -> None:
    """A server that refuses every pair, as a model for single texts may, is left after some rows."""
    rows: list[Row] = [(f"premise {n}", f"hypothesis {n}") for n in range(400)]
    with FakeServer(api=TeiApi()) as server:
        server.rules.append((lambda text: BETWEEN in text, refused(server, "not_understood")))
        with pytest.raises(Misconfigured, match="none was answered"):
            classified(tmp_path, rows, server)
