"""What is remembered is found; what differs in text, model or setting is not; and the file keeps to its bound."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from answers import answers_of, failed
from hypothesis import given
from hypothesis import strategies as st
from identities import identity
from reuse_files import GB, NAMES, answer, answers, found, opened, remember, said

from pipeline.answers import Answers
from pipeline.reuse import GROUP_BYTES, GROUP_S, Reuse
from pipeline.texts import escape_all

# -- in and out again


def test_what_is_remembered_is_found_by_a_later_run(tmp_path: Path) -> None:
    """Label, score and probabilities, bit by bit, also those of the same text twice; other texts are unknown."""
    texts = [f"text {number}" for number in range(300)]
    with opened(tmp_path / "r", keep_probs=True) as store:
        remember(store, texts)
    expected = [(NAMES[row.index(max(row))], max(row), row) for row in map(answer, range(300))]
    with opened(tmp_path / "r", keep_probs=True) as store:
        assert found(store, texts) == expected
        assert found(store, ["text 7", "text", "text 7 ", "text 7", ""]) == [expected[7], None, None, expected[7], None]
        assert found(store, []) == []


@given(st.data())
def test_any_texts_are_found_and_no_others(data: st.DataObject) -> None:
    """Whatever the texts hold, each has the answer it was given last, in this run and in the next."""
    text = st.text(max_size=5)
    given_texts = data.draw(st.lists(st.dictionaries(text, st.integers(0, 10**6), max_size=20), max_size=4))
    others = data.draw(st.lists(text, max_size=20))
    with tempfile.TemporaryDirectory() as folder:
        last: dict[str, int] = {}
        for numbered in given_texts:
            with opened(Path(folder) / "r", keep_probs=True) as store:
                remember(store, list(numbered), list(numbered.values()))
                last |= numbered
                store.flush(now=True)
                assert found(store, list(last)) == [(*said(number),) for number in last.values()]
        with opened(Path(folder) / "r", keep_probs=True) as store:
            wanted = others + list(last)
            expected = [(*said(last[each]),) if each in last else None for each in wanted]
            assert found(store, wanted) == expected


def test_it_is_committed_when_it_is_much_or_old_or_the_run_ends(tmp_path: Path) -> None:
    """A commit costs, so what waits is gathered for some seconds; closing commits all of it."""
    now = 0.0
    with closing(Reuse(tmp_path / "r", max_bytes=GB, clock=lambda: now)) as store, opened(tmp_path / "r") as other:
        store.bind(identity(), 2, keep_probs=False)
        remember(store, ["early"])
        store.flush()
        assert found(other, ["early"]) == [None]
        now = GROUP_S
        store.flush()
        assert found(other, ["early"]) != [None]
        many = [f"text {number}" for number in range(GROUP_BYTES // 36 + 1)]
        remember(store, many)
        store.flush()
        assert None not in found(other, many)
        remember(store, ["last"])
    with opened(tmp_path / "r") as store:
        assert found(store, ["last"]) != [None]


# -- only sound answers


def test_only_sound_answers_are_kept(tmp_path: Path) -> None:
    """No error, no answer to a text that was cut, none whose class is open; the others of the request are kept."""
    mixed = Answers.joined([answers([0, 1]), failed("timeout: no answer"), answers([3, 4])])
    mixed.truncated = frozenset({3})
    ties = answers_of(["maybe", "no"], [0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]])
    mixed = Answers.joined([mixed, ties])
    texts = list("abcdefg")
    with opened(tmp_path / "r") as store:
        store.remember(store.find(escape_all(texts)).keys, mixed, NAMES)
    with opened(tmp_path / "r") as store:
        assert [each is not None for each in found(store, texts)] == [True, True, False, False, True, False, True]


def test_a_class_is_called_what_the_model_calls_it_now(tmp_path: Path) -> None:
    """The class is kept and not its name; while a name is not known, neither is the answer."""
    with opened(tmp_path / "r") as store:
        remember(store, ["a", "b"])
        store.remember(store.find(escape_all(["c"])).keys, answers_of(["LABEL_1"], [0.75], [[0.25, 0.75]]), {})
        store.remember(store.find(escape_all(["d"])).keys, answers_of(["LABEL_0"], [0.75], [[0.25, 0.75]]), {})
    with opened(tmp_path / "r") as store:
        assert [each and each[0] for each in found(store, list("abcd"))] == ["no", "yes", "yes", None]
        renamed = found(store, list("abcd"), {1: "ja"})
        assert [each and each[0] for each in renamed] == [None, "ja", "ja", None]
        assert store.find(escape_all(["b", "a", "x"])).examples() == {0: 1, 1: 0}


# -- whose answers


@pytest.mark.parametrize(
    "settings",
    [
        {"request.activation": False},
        {"request.extra": {"add_special_tokens": False}},
        {"server.model_version": "2"},
        {"server.model": "n"},
    ],
    ids=str,
)
def test_other_settings_have_other_answers(settings: dict[str, Any], tmp_path: Path) -> None:
    """What changes an answer is part of whose it is, and each keeps its own."""
    one, other = identity({"server.model": "m"}), identity({"server.model": "m"} | settings)
    for whose, number in ((one, 1), (other, 2)):
        with opened(tmp_path / "r", whose) as store:
            assert found(store, ["text"]) == [None]
            remember(store, ["text"], [number])
    for whose, number in ((one, 1), (other, 2)):
        with opened(tmp_path / "r", whose) as store:
            assert found(store, ["text"]) == [(*said(number)[:2], None)]


@pytest.mark.parametrize(
    ("model", "same"),
    [
        ({"id": "n"}, False),
        ({"root": "./n"}, False),
        ({"max_model_len": 256}, False),
        ({"num_classes": 3}, False),
        ({"names": {"0": "nein"}}, False),
        ({"canary": [[0.25, 0.752], [0.5, 0.5]]}, False),
        ({"canary": [[0.2501, 0.7499], [0.5, 0.5]]}, True),
        ({"names": {"1": "yes"}}, True),
    ],
    ids=str,
)
def test_another_model_never_gets_an_answer(model: dict[str, Any], same: bool, tmp_path: Path) -> None:
    """Its id, what the server says of it, its classes, and its numbers beyond 1e-3."""
    with opened(tmp_path / "r", identity(root="./m")) as store:
        remember(store, ["text"])
    with opened(tmp_path / "r", identity(**({"root": "./m"} | model)), classes=model.get("num_classes", 2)) as store:
        assert (found(store, ["text"]) != [None]) is same


@pytest.mark.parametrize(
    "settings",
    [{"loader.text_column": "body"}, {"loader.template": "{text}"}, {"loader.encoding": "cp1252"}],
    ids=str,
)
def test_where_a_text_comes_from_does_not_matter(settings: dict[str, Any], tmp_path: Path) -> None:
    """Another file, another column, another format: the same text has the same answer."""
    with opened(tmp_path / "r") as store:
        remember(store, ["text"])
    with opened(tmp_path / "r", identity(settings, digest="2-cd")) as store:
        assert found(store, ["text"]) != [None]


def test_a_model_that_drifts_keeps_to_the_first_that_suits(tmp_path: Path) -> None:
    """Numbers within 1e-3 of two contexts: always the one that was there first."""
    drifting = [identity(canary=[[0.25 + step / 1600, 0.75]]) for step in range(3)]
    for number, whose in ((0, drifting[0]), (1, drifting[2])):
        with opened(tmp_path / "r", whose) as store:
            remember(store, ["text"], [number])
    for _ in range(3):
        with opened(tmp_path / "r", drifting[1]) as store:
            assert found(store, ["text"]) == [(*said(0)[:2], None)]


def test_answers_without_probabilities_serve_no_run_that_needs_them(tmp_path: Path) -> None:
    """The other way round they do, and then all that is added has them, too."""
    with opened(tmp_path / "r") as store:
        remember(store, ["a"])
    with opened(tmp_path / "s", keep_probs=True) as store:
        remember(store, ["a"])
    with opened(tmp_path / "r", keep_probs=True) as store:
        assert found(store, ["a"]) == [None]
    with opened(tmp_path / "s") as store:
        assert found(store, ["a"]) == [(*said(0)[:2], None)]
        remember(store, ["b"], [1])
    with opened(tmp_path / "s", keep_probs=True) as store:
        assert found(store, ["a", "b"]) == [said(0), said(1)]


def test_a_half_of_a_key_is_not_enough(tmp_path: Path) -> None:
    """Two texts with the same first 64 bits: the second is unknown, and never gets the answer of the first."""
    with opened(tmp_path / "r") as store:
        (key,) = store.find(escape_all(["text"])).keys
        store.remember([key[:8] + bytes(8)], answers([0]), NAMES)
        store.flush(now=True)
        assert found(store, ["text"]) == [None]
        store.remember([key], answers([0]), NAMES)
        store.flush(now=True)
        assert found(store, ["text"]) != [None]


# -- the bound


@pytest.mark.slow
@pytest.mark.parametrize("keep_probs", [False, True], ids=["labels", "probs"])
def test_the_file_keeps_to_its_bound(tmp_path: Path, keep_probs: bool) -> None:
    """However much is remembered; and the last answers, a good third of the bound, are still there."""
    bound, path = 2_000_000, tmp_path / "r"
    with opened(path, keep_probs=keep_probs, max_bytes=bound) as store:
        for number_of_run in range(20):
            remember(store, [f"{number_of_run} {number}" for number in range(10_000)])
            store.flush(now=True)
            assert path.stat().st_size <= bound
        last = [f"{number_of_run} {number}" for number_of_run in (18, 19) for number in range(10_000)]
        assert None not in found(store, last[10_000:])
        assert found(store, [f"0 {number}" for number in range(100)]) == [None] * 100
    assert bound / 3 < path.stat().st_size <= bound


@pytest.mark.slow
def test_answers_in_use_stay(tmp_path: Path) -> None:
    """Texts of every run outlive ten times the bound of texts of one run."""
    daily, bound = [f"daily {number}" for number in range(3000)], 1_500_000
    with opened(tmp_path / "r", max_bytes=bound) as store:
        remember(store, daily)
    for number_of_run in range(20):
        with opened(tmp_path / "r", max_bytes=bound) as store:
            assert None not in found(store, daily), number_of_run
            remember(store, [f"{number_of_run} {number}" for number in range(10_000)])


@pytest.mark.slow
def test_a_smaller_bound_holds_from_then_on(tmp_path: Path) -> None:
    """A file that is too large by a new bound grows no more, and its pages are used again."""
    with opened(tmp_path / "r") as store:
        remember(store, [f"text {number}" for number in range(60_000)])
    size = (tmp_path / "r").stat().st_size
    with opened(tmp_path / "r", max_bytes=size // 2) as store:
        for number_of_run, _ in itertools.product(range(5), range(2)):
            remember(store, [f"{number_of_run} {number}" for number in range(10_000)])
            store.flush(now=True)
        assert None not in found(store, [f"4 {number}" for number in range(10_000)])
    assert (tmp_path / "r").stat().st_size <= size


def test_models_that_nobody_asks_for_any_more_are_forgotten(tmp_path: Path) -> None:
    """A context lives as long as its answers; one that comes back starts anew, and gets no answer of another."""
    bound = 1_000_000
    for version in range(5):
        with opened(tmp_path / "r", identity({"server.model_version": str(version)}), max_bytes=bound) as store:
            remember(store, [f"text {number}" for number in range(20_000)], [version] * 20_000)
    with opened(tmp_path / "r", identity({"server.model_version": "0"}), max_bytes=bound) as store:
        assert found(store, ["text 1"]) == [None]
        contexts = store._reader.execute("SELECT count(*) FROM contexts").fetchone()[0]
        assert contexts <= 3
    with opened(tmp_path / "r", identity({"server.model_version": "4"}), max_bytes=bound) as store:
        assert found(store, ["text 19999"]) == [(*said(4)[:2], None)]


def test_scores_keep_every_bit(tmp_path: Path) -> None:
    """Logits too: negative, tiny and large."""
    values = [-math.pi, 5e-324, -1e308, 0.1 + 0.2]
    with opened(tmp_path / "r", keep_probs=True) as store:
        keys = store.find(escape_all([str(value) for value in values])).keys
        probs: list[Sequence[float] | None] = [[value, math.nextafter(value, -math.inf)] for value in values]
        store.remember(keys, answers_of(["no"] * 4, values, probs), NAMES)
    with opened(tmp_path / "r", keep_probs=True) as store:
        assert found(store, [str(value) for value in values]) == [
            ("no", value, row) for value, row in zip(values, probs, strict=True)
        ]
