"""Texts that are longer than the model: cut into parts, and the values of the parts combined."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import Command, wait_until_answered
from fake import LABELS, Action, FakeServer, probs_of, refuse, reply, too_long
from files import rows_of, write
from hypothesis import example, given
from hypothesis import strategies as st
from killing import finish, kill_group, start
from whole_runs import QUICK

from pipeline import classify_frame, classify_texts
from pipeline.answers import Answers, Labels
from pipeline.batcher.parts import Part, combined, cut
from pipeline.config import Config, Loader, Request, Run, Server, Writer
from pipeline.errors import Misconfigured
from pipeline.monitoring.progress import Progress
from pipeline.runs import run
from pipeline.servers.embedded_apis import About, Api, HfApi, InfinityApi, TeiApi
from pipeline.servers.model import CANARY

LONGEST = 60  # characters that a fake takes
PROSE = "The room was clean. Breakfast came late, and cold! Would we come again? Perhaps… "
WORDS = st.sampled_from(["a", "word", "é😀", "end.", "so!", "\n", "  ", "、", "長い文。", "\t", "x" * 30])
TEXTS = st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=300)


@given(TEXTS, st.integers(1, 80))
def test_parts_are_the_text_cut_at_some_places(text: str, most: int) -> None:
    """In order, each character once, none longer than asked for; a short text is one part."""
    parts = cut(text, most)
    assert "".join(parts) == text
    assert all(0 < len(part) <= most for part in parts) or parts == [""]
    assert len(parts) == 1 or len(text) > most


@given(TEXTS.filter(lambda text: len(text) > 1))
@example("end. a a a word word")
def test_a_text_is_cut_after_a_sentence_else_after_a_word_in_the_half_around_its_middle(text: str) -> None:
    """At the place nearest to the middle of those that are best."""
    place = len(cut(text, len(text) - 1)[0])
    margin = max(1, len(text) // 4)
    around = range(margin, len(text) - margin + 1)
    assert place in around or cut(text[:place], len(text) - 1) != [text[:place]]
    ends_of_sentences = [at for at in around if re.search(r"([.!?…]\s+|[。！？]\s*|\n\s*)\Z", text[:at])]  # noqa: RUF001
    ends_of_words = [at for at in around if text[at - 1].isspace()]
    if ends_of_sentences:
        assert text[:place].rstrip()[-1:] in (*".!?…。！？", "") or "\n" in text[:place]  # noqa: RUF001
    elif ends_of_words:
        assert text[place - 1].isspace()
    else:
        assert place == len(text) // 2


def answer_of(values: Sequence[float]) -> Answers:
    """One answered row."""
    labels = Labels([f"c{index}" for index in range(len(values))])
    best = int(np.argmax(values))
    return Answers(labels, np.array([best], np.int32), np.array([values[best]]), np.array([values], np.float64))


VALUES = st.integers(1, 4).flatmap(
    lambda classes: st.lists(
        st.tuples(st.integers(1, 50), st.lists(st.floats(-9, 9), min_size=classes, max_size=classes)),
        min_size=1,
        max_size=6,
    )
)


@given(VALUES, st.sampled_from(["mean", "max"]))
def test_the_combined_values_are_those_of_a_plain_reference(parts: list[tuple[int, list[float]]], how: Any) -> None:
    """The mean weighted by length or the largest, class by class; the label is that of the largest of these."""
    names = {index: f"c{index}" for index in range(len(parts[0][1]))}
    found = combined([Part("x" * length, answer_of(values)) for length, values in parts], how, names)
    columns = [*zip(*(values for _, values in parts), strict=True)]
    weights = [length for length, _ in parts]
    right = [
        max(column) if how == "max" else sum(w * v for w, v in zip(weights, column, strict=True)) / sum(weights)
        for column in columns
    ]
    (row,) = found
    assert row.probs == pytest.approx(right)
    assert row.score == max(row.probs or [])
    assert row.label == names[(row.probs or []).index(row.score)]
    assert row.parts == len(parts)


def reference(text: str, longest: int, how: str = "mean") -> tuple[list[float], int]:
    """The values of a text and its parts, by a server that takes `longest` characters: as the documentation says."""
    parts = leaves(text, longest)
    values = [probs_of(part) for part in parts]
    if len(parts) == 1:
        return values[0], 1
    weights = [len(part) for part in parts]
    if how == "max":
        return [max(column) for column in zip(*values, strict=True)], len(parts)
    total = sum(weights)
    columns = zip(*values, strict=True)
    return [sum(w * v for w, v in zip(weights, column, strict=True)) / total for column in columns], len(parts)


def leaves(text: str, longest: int) -> list[str]:
    """Make the parts shorter until the first is taken; of the others those that are too long are cut like a text."""
    first = text
    if len(text) <= longest:
        return [text]
    while True:
        first, *others = [part for part in cut(text, int(0.6 * len(first))) if not part.isspace()]
        if len(first) <= longest:
            return [first, *(leaf for part in others for leaf in leaves(part, longest))]


def mixed(rows: int) -> list[str]:
    """Short and long texts, some of them twice."""
    texts = [f"short {n}" for n in range(rows)]
    for n in range(3, rows, 5):
        texts[n] = f"{n} " + "".join(f"{k}: {PROSE}" for k in range(1 + n % 6))
    texts[rows - 1] = texts[3]
    texts[7] = "é😀" * 200
    texts[8] = "begin" + " " * 500 + "end"
    return texts


def assert_right(rows: list[dict[str, Any]], texts: Sequence[str], longest: int, how: str = "mean") -> None:
    """Label, score and parts of every row are those of the reference."""
    for row, text in zip(rows, texts, strict=True):
        values, parts = reference(text, longest, how)
        assert row["predicted_parts"] == parts
        assert row["predicted_score"] == pytest.approx(max(values))
        assert row["predicted_label"] == LABELS[values.index(max(values))]
        assert row["predicted_error"] is None


def is_long(text: str) -> bool:
    """Whether the fakes refuse a text."""
    return len(text) > LONGEST


def classified(folder: Path, texts: Sequence[Any], server: FakeServer, request: Request, kind: str = "jsonl") -> Any:
    """Run in this process, all classes named; return the record."""
    config = Config(
        loader=Loader(input=str(write(folder / f"in.{kind}", texts))),
        writer=Writer(output=str(folder / f"out.{kind}"), labels=list(LABELS)),
        server=Server(url=server.url, api="auto" if server.api is None else server.api.name, wait_s=20),  # type: ignore[arg-type]
        request=request,
        retry=QUICK,
        run=Run(max_failed_rows=9),
    )
    return asyncio.run(run(config, Progress("quiet")))


@pytest.mark.parametrize("how", ["mean", "max"])
def test_long_texts_get_the_values_of_their_parts(how: Any, tmp_path: Path, fake: FakeServer) -> None:
    """Each part is paid for once, no request is too large, and rows keep their order."""
    texts, largest = mixed(80), 300
    fake.rules.append((is_long, too_long()))
    request = Request(too_long="split", combine=how, rows=16, max_chars=largest, concurrency=4)
    record = classified(tmp_path, texts, fake, request)
    rows = rows_of(tmp_path / "out.jsonl")
    assert_right(rows, texts, LONGEST, how)
    assert record.in_parts == sum(row["predicted_parts"] > 1 for row in rows) > 15
    assert record.exit_code == 0
    wanted = Counter(part for text in texts for part in leaves(text, LONGEST))
    assert all(times <= wanted[text] for text, times in fake.answered.items() if text not in CANARY)
    assert all(len(seen.texts) <= 16 for seen in fake.requests)
    assert all(sum(map(len, seen.texts)) <= largest or len(seen.texts) == 1 for seen in fake.requests)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_what_can_t_be_answered_in_parts_is_an_error_of_its_row(kind: str, tmp_path: Path, fake: FakeServer) -> None:
    """A part that is refused for another reason, and a text that is refused however short: the others are right."""
    texts: list[str | None] = [*mixed(40)]
    texts[9] = PROSE + "poison. " + PROSE * 3
    texts[11] = "stubborn " * 40
    texts[12] = None
    fake.rules.append((lambda text: "stubborn" in text or "bor" in text, too_long()))
    fake.rules.append((is_long, too_long()))
    fake.rules.append((lambda text: "poison" in text, refuse(400, "no")))
    record = classified(tmp_path, texts, fake, Request(too_long="split", rows=16), kind)
    assert record.failed == {"rejected": 1, "too_long": 1}
    rows = rows_of(tmp_path / f"out.{kind}")
    assert [str(rows[n]["predicted_error"]).partition(":")[0] for n in (9, 11, 12)] == ["rejected", "too_long", "empty"]
    assert {rows[n]["predicted_parts"] for n in (9, 11, 12)} <= {None, ""}
    for n, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if n not in (9, 11, 12):
            values, parts = reference(str(text), LONGEST)
            assert int(row["predicted_parts"]) == parts
            assert float(row["predicted_score"]) == pytest.approx(max(values))
            assert row["predicted_label"] == LABELS[values.index(max(values))]


def test_a_server_to_which_everything_is_too_long_is_soon_left_in_peace(tmp_path: Path, fake: FakeServer) -> None:
    """Texts that are cut in vain count as failed, as refused ones do."""
    fake.each = lambda asked: None if asked == list(CANARY) else too_long()
    with pytest.raises(Misconfigured, match="none was answered"):
        classified(tmp_path, [f"{n} {PROSE}" for n in range(5000)], fake, Request(too_long="split"))
    assert len(fake.requests) < 3000


@pytest.mark.parametrize("api", [TeiApi(), InfinityApi(), HfApi()])
def test_texts_can_be_cut_before_they_are_sent(api: Api, tmp_path: Path) -> None:
    """For servers that cut without a word: no text is longer than that, and none is refused for its length."""
    texts = mixed(40)
    with FakeServer(api=api) as server:
        server.rules.append((is_long, reply(500, "this must not be sent")))
        record = classified(tmp_path, texts, server, Request(too_long="split", max_text_chars=LONGEST, rows=16))
        assert max(map(len, server.texts)) <= LONGEST
    assert record.retries == 0
    for row, text in zip(rows_of(tmp_path / "out.jsonl"), texts, strict=True):
        parts = [part for part in cut(text, LONGEST) if not part.isspace()]
        values = [probs_of(part) for part in parts]
        weights = [len(part) for part in parts]
        mean = [
            sum(w * v for w, v in zip(weights, column, strict=True)) / sum(weights)
            for column in zip(*values, strict=True)
        ]
        assert row["predicted_parts"] == len(parts)
        assert row["predicted_score"] == pytest.approx(max(mean))


def test_parts_that_are_still_too_long_are_cut_again(tmp_path: Path, fake: FakeServer) -> None:
    """Of a text that was cut before: those that fit are not sent again."""
    text = "word " * 20 + "".join(f"{n} " for n in range(200))
    fake.rules.append((lambda sent: len(sent) > (40 if "1" in sent else 100), too_long()))
    classified(tmp_path, [text, "short"], fake, Request(too_long="split", max_text_chars=100))
    assert {times for sent, times in fake.answered.items() if sent not in CANARY} == {1}
    (row, _) = rows_of(tmp_path / "out.jsonl")
    assert row["predicted_parts"] == len(fake.answered) - len(CANARY) - 1 > 15


def test_killed_among_parts_no_whole_row_is_sent_again(tmp_path: Path, fake: FakeServer) -> None:
    """Rows that were answered stay so, also those of the chunk; the output is that of a run without a kill."""
    texts = mixed(120)
    texts[60] = PROSE * 60
    fake.rules.append((is_long, too_long()))
    classified(tmp_path / "whole", texts, fake, Request(too_long="split"))
    whole = sum(not is_long(text) for text in texts)  # they are answered first: now kills come among parts
    parts = fake.answered.total() - whole
    fake.answered.clear()
    source = write(tmp_path / "in.jsonl", texts)
    output, names = tmp_path / "out.jsonl", f"writer.labels={json.dumps(LABELS)}"
    arguments = ["run", "-i", str(source), "-o", str(output), "--url", fake.url, "--quiet", "--set", names]
    arguments += ["--set", "request.too_long=split", "--set", "request.rows=200", "--set", "request.concurrency=1"]
    for share in (0.3, 0.5, 0.7):
        fake.hold_after = whole + int(share * parts)
        process = start(arguments)
        try:
            wait_until_answered(fake, fake.hold_after)
            time.sleep(1.5)  # a second of answers may be lost
        finally:
            kill_group(process)
        fake.hold_after = None
    code, errors = finish(arguments)
    assert code == 0, errors
    assert output.read_bytes() == (tmp_path / "whole" / "out.jsonl").read_bytes()
    parts_of = {text: leaves(text, LONGEST) for text in texts}
    wanted = Counter(part for parts in parts_of.values() for part in parts)
    again = {text for text, times in fake.answered.items() if times > wanted[text] and text not in CANARY}
    assert not again & {*texts}
    texts_with = Counter(part for parts in parts_of.values() for part in {*parts})
    in_doubt = {text for text, parts in parts_of.items() if any(texts_with[part] == 1 for part in again & {*parts})}
    assert len(in_doubt) <= 3  # one for each kill


def test_the_third_command_takes_all_from_stored_answers(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The answer of all parts is kept for the text, with their number, and apart from those of other ways."""
    texts = mixed(40)
    write(tmp_path / "in.jsonl", texts)
    fake.rules.append((is_long, too_long()))
    common = ["run", "in.jsonl", "--url", fake.url, "--quiet", "--set", f"writer.labels={json.dumps(LABELS)}"]
    common += ["--set", "run.reuse=answers.sqlite", "--set", "request.too_long=split"]
    classify(*common, "-o", "one.jsonl")
    fake.requests.clear()
    classify(*common, "-o", "two.jsonl")
    assert set(fake.texts) <= {*CANARY}
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    classify(*common, "-o", "three.jsonl", "--set", "request.combine=max")
    assert_right(rows_of(tmp_path / "three.jsonl"), texts, LONGEST, "max")


def test_rows_that_were_too_long_are_answered_in_parts_later(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """--retry-failed with parts sends only these; what was answered in parts can't be mixed with another way."""
    texts = mixed(40)
    write(tmp_path / "in.jsonl", texts)
    fake.rules.append((is_long, too_long()))
    common = ["run", "in.jsonl", "-o", "out.jsonl", "--url", fake.url, "--set", f"writer.labels={json.dumps(LABELS)}"]
    told = classify(*common, expect=3).stderr
    assert "--set request.too_long=split" in told
    fake.requests.clear()
    split = ["--set", "request.too_long=split"]
    done = classify(*common, *split, "--retry-failed")
    assert "in parts" in done.stderr
    assert not [text for text in fake.texts if text.startswith("short")]
    assert_right(rows_of(tmp_path / "out.jsonl"), texts, LONGEST)
    assert "already" in classify(*common, *split).stderr
    for other in (["--set", "request.combine=max"], ["--set", "request.max_text_chars=50"]):
        assert "was made differently" in classify(*common, *split, *other, expect=2).stderr
    assert "request.combine" in classify(*common, expect=2).stderr


def test_answers_to_cut_texts_are_not_mixed_with_parts(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A run that had texts cut by the server is not finished in parts."""
    write(tmp_path / "in.jsonl", [PROSE * 3, *(f"text {n}" for n in range(50))])

    def action(asked: list[str]) -> Action | None:
        return (
            too_long() if any(map(is_long, asked)) and "truncate_prompt_tokens" not in fake.requests[-1].body else None
        )

    fake.each = action
    common = ["run", "in.jsonl", "-o", "out.jsonl", "--url", fake.url, "--set", f"writer.labels={json.dumps(LABELS)}"]
    fake.rules.append((lambda text: text == "text 40", refuse(503, "busy")))
    classify(
        *common, "--set", "request.too_long=truncate", "--set", "run.deadline=3s", "--set", "request.rows=8", expect=4
    )
    fake.rules.clear()
    done = classify(*common, "--set", "request.too_long=split", expect=2)
    assert "request.too_long: was truncate" in done.stderr


def test_mistakes_are_told_before_the_first_row(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Keys without their way, too small a number, names that are not known, and a server without all values."""
    write(tmp_path / "in.jsonl", ["a", "b"])
    common = ["run", "in.jsonl", "-o", "out.jsonl"]
    for key in ("request.combine=max", "request.max_text_chars=500"):
        told = classify(*common, "--set", key, expect=2).stderr
        assert f'{key.partition("=")[0]} is for texts in parts: set request.too_long = "split"' in told
    split = ["--set", "request.too_long=split"]
    assert "at least 16" in classify(*common, *split, "--set", "request.max_text_chars=3", expect=2).stderr
    fake.labels = ("negative", "neutral", "positive", "never", "seen")
    told = classify(*common, *split, "--url", fake.url, expect=2).stderr
    assert re.search(r"of 5 classes \d have a name so far; .* name them in writer\.labels", told)
    with FakeServer(api=BestOnly()) as server:
        told = classify(*common, *split, "--url", server.url, expect=2).stderr
        assert 'gives only the best class of each text; leave request.too_long = "split"' in told
    with FakeServer(api=InfinityApi()) as server:
        told = classify(*common, *split, "--url", server.url).stderr
        assert "does not say which; request.max_text_chars has them split before" in told
        seen = classify("check", "in.jsonl", *split, "--url", server.url).stdout
        assert "request.max_text_chars has them answered in parts" in seen


class BestOnly(HfApi):
    """A server of one's own around the pipeline, which does not know its parameters."""

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:  # noqa: ARG002
        """Return the best pair of each text."""
        return super().answer({}, rows, about)


def test_from_python_a_prediction_says_how_many_parts_there_were(fake: FakeServer) -> None:
    """1 of a text that fit, None of a row without an answer."""
    fake.rules.append((is_long, too_long()))
    config = Config(request=Request(too_long="split"), server=Server(url=fake.url), writer=Writer(labels=list(LABELS)))
    short, long, nothing = classify_texts(["short", PROSE * 2, None], config=config)
    assert (short.parts, long.parts, nothing.parts) == (1, reference(PROSE * 2, LONGEST)[1], None)
    assert f"parts={long.parts})" in repr(long)
    frame = classify_frame(pd.DataFrame({"text": ["short", PROSE * 2, None]}), "text", config=config)
    assert str(frame["predicted_parts"].dtype) == "Int64"
    assert frame["predicted_parts"].tolist() == [1, long.parts, pd.NA]
