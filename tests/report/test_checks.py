"""The checks: they fail beyond their limit, beyond chance and on enough rows, and never otherwise."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from labelled import LABELS, Labelled, document, made_up

from pipeline.config import LIMITS
from pipeline.report.checks import KINDS, checks_of, verdict_of
from pipeline.report.comparison import compare, then_of
from pipeline.report.document import Document

ALL = set(KINDS.values())


def checked(
    now: Document, then: Document | None = None, fail_on: Collection[str] = ALL, **limits: float
) -> dict[str, dict[str, Any]]:
    """The checks of a report by their ids; its verdict is in it."""
    found = copy.deepcopy(now)
    if then is not None:
        found["drift"] = compare(found, then_of([then]))
    found["checks"] = checks_of(found, LIMITS | limits, fail_on)
    now["verdict"] = verdict_of(found)
    return {each["id"]: each for each in found["checks"]}


def states(
    now: Document, then: Document | None = None, fail_on: Collection[str] = ALL, **limits: float
) -> dict[str, str]:
    """The states of all checks by their ids."""
    return {name: check["state"] for name, check in checked(now, then, fail_on, **limits).items()}


def test_every_check_has_a_limit_and_a_kind() -> None:
    """Those of the config, and no others."""
    assert LIMITS.keys() == KINDS.keys()


def test_a_night_like_the_last_one_passes() -> None:
    """All that can be asked is asked, and nothing fails."""
    now, then = document(made_up(5000, 1)), document(made_up(5000, 2))
    found = states(now, then, min_accuracy=0.8)
    assert found == dict.fromkeys(KINDS.keys() - {"canary"}, "pass")
    assert now["verdict"] == "pass"


@pytest.mark.parametrize("rows", [100, 1000, 20_000])
def test_another_mix_is_drift(rows: int) -> None:
    """A quarter of the rows has another label: found with 1,000 rows; with 100 it may be unsure, and never passes."""
    now, then = document(made_up(rows, 1, (1, 3, 2, 4))), document(made_up(rows, 2, (4, 3, 2, 1)))
    found = checked(now, then)
    assert found["label_shift"]["state"] == ("fail" if rows >= 1000 else found["label_shift"]["state"])
    assert found["label_shift"]["state"] in ("fail", "unsure")
    assert found["accuracy_drop"]["state"] in ("pass", "unsure")
    assert "most of all" in found["label_shift"]["text"]
    assert states(now, then, {"regression"})["label_shift"] in ("warn", "unsure")


def test_a_worse_model_is_a_regression() -> None:
    """Right in 80 instead of 90 of 100: as the truth says; without a truth nobody asks."""
    now, then = document(made_up(5000, 1, accuracy=0.8)), document(made_up(5000, 2))
    found = checked(now, then, min_accuracy=0.85)
    assert (found["accuracy_drop"]["state"], found["min_accuracy"]["state"]) == ("fail", "fail")
    assert found["accuracy_drop"]["value"] == pytest.approx(0.1, abs=0.02)
    assert now["verdict"] == "fail"
    assert not {"accuracy_drop", "min_accuracy", "ece"} & states(document(made_up(100, 1), truth=None), then).keys()


def test_few_rows_with_a_truth_are_unsure() -> None:
    """Right in 40 of 50 instead of 46 of 50 may be chance."""
    now = document([*made_up(5000, 1), *[]][:40] + [row._replace(truth="never") for row in made_up(10, 3)])
    then = document(made_up(50, 2))
    assert states(now, then)["accuracy_drop"] == "unsure"
    assert now["verdict"] != "fail"


def test_rare_labels_that_are_all_renamed_are_drift() -> None:
    """Each has too few rows to say something by itself; together they do. Without a change they say nothing."""

    def night(prefix: str, seed: int) -> Document:
        rows = [Labelled(f"{prefix}{number % 500}", 0.9, text=f"text {number}") for number in range(2000)]
        return document(rows if seed else rows[::-1])

    assert states(night("new", 1), night("old", 1))["label_shift"] == "fail"
    assert states(night("old", 0), night("old", 1))["label_shift"] != "fail"


def test_an_accuracy_that_no_row_shows_is_not_reached() -> None:
    """What is to be at least 0.9 right, and can't be judged at all, has not passed."""
    now = document([row._replace(truth=None) for row in made_up(100, 1)])
    assert states(now, min_accuracy=0.9)["min_accuracy"] == "fail"


def test_scores_that_promise_too_much_are_found() -> None:
    """Each a tenth too high; a few rows are not enough to say so."""
    rows = [row._replace(score=min(1.0, (row.score or 0) + 0.09)) for row in made_up(20_000, 1, accuracy=0.8)]
    assert states(document(rows))["ece"] == "fail"
    assert states(document(rows[:200]))["ece"] in ("unsure", "pass")
    assert "too sure of itself" in checked(document(rows))["ece"]["text"]


def test_more_failed_rows_than_before() -> None:
    """Two of 100 more; of ten rows one is no sign."""
    good = made_up(2000, 1)
    bad = [Labelled(None, None, "timeout: 300 s") if at % 50 == 0 else row for at, row in enumerate(good)]
    assert states(document(bad), document(good))["failed_rise"] == "fail"
    assert states(document(good), document(bad))["failed_rise"] == "pass"
    assert states(document(bad[:10]), document(good))["failed_rise"] == "unsure"


def test_other_scores_are_drift() -> None:
    """The same labels, less sure."""
    now = [row._replace(score=(row.score or 0) * 0.9) for row in made_up(3000, 1)]
    assert states(document(now), document(made_up(3000, 2)))["score_shift"] == "fail"


def test_one_label_for_all_is_drift() -> None:
    """There is nothing to compare with, and it is found: a model behind which something is broken."""
    assert states(document([Labelled("spam", 0.9)] * 1000, truth=None))["one_label"] == "fail"
    assert states(document([Labelled("spam", 0.9)] * 50, truth=None))["one_label"] == "unsure"
    assert states(document(made_up(1000, 1), truth=None))["one_label"] == "pass"


def test_the_canary_is_compared_under_the_same_name() -> None:
    """Other numbers are another model behind the old name; under another name that is as it should be."""
    rows = made_up(500, 1)
    models = [
        {"id": name, "canary": [[0.2, 0.8], [0.5, number]]} for name, number in (("a", 0.5), ("a", 0.6), ("b", 0.6))
    ]
    old, new, other = (document(rows, model=model) for model in models)
    assert states(old, old)["canary"] == "pass"
    assert states(new, old)["canary"] == "fail"
    assert "canary" not in states(other, old)
    more = document(rows, model={"id": "a", "canary": [[0.2, 0.4, 0.4], [0.5, 0.2, 0.3]]})
    assert checked(more, old)["canary"]["value"] == 1


def test_labels_that_are_new_or_gone_are_named() -> None:
    """From 20 rows on."""
    rows = made_up(1000, 1)
    with_new = [*rows, *[Labelled("new", 0.9)] * 30, *[Labelled("rare", 0.9)] * 3]
    drift = compare(document(with_new), then_of([document(rows)]))
    assert (drift["new"], drift["gone"]) == (["new"], [])
    drift = compare(document(rows), then_of([document(with_new)]))
    assert (drift["new"], drift["gone"]) == ([], ["new"])


def test_several_nights_are_summed() -> None:
    """Seven nights are one with all their rows; day and model are those of the latest."""
    nights = [document(made_up(500, seed), started=f"2026-11-{20 + seed}") for seed in range(7)]
    rows = [row for seed in range(7) for row in made_up(500, seed)]
    then, whole = then_of(nights), document(rows)
    assert then.labels == {each["label"]: each["rows"] for each in whole["labels"]}
    assert then.scores == whole["scores"]["counts"]
    assert then.mean == pytest.approx(whole["scores"]["mean"])
    assert then.right / then.truths == pytest.approx(whole["truth"]["accuracy"][0])
    assert (then.nights, then.started) == (7, "2026-11-20")


def test_no_row_is_no_reason_to_fail() -> None:
    """An empty night, against one that was not, and the other way round."""
    empty, full = document([]), document(made_up(1000, 1))
    for now, then in ((empty, full), (full, empty), (empty, empty)):
        assert not {"fail", "warn"} & set(states(now, then).values())


def test_without_truth_and_comparison_nothing_is_praised() -> None:
    """Then the verdict is that there is nothing to judge by."""
    now = document(made_up(1000, 1), truth=None)
    states(now)
    assert now["verdict"] == "unjudged"


@pytest.mark.slow
@pytest.mark.parametrize("rows", [100, 300, 1000, 5000])
def test_chance_raises_no_alarm(rows: int) -> None:
    """Forty nights of the same source; the whole table is made by tests/bench/report_alarms.py."""
    for seed in range(20):
        now, then = (document(made_up(rows, 2 * seed + side), examples=0) for side in (0, 1))
        assert "fail" not in states(now, then).values()


def test_labels_of_any_name_are_compared() -> None:
    """The order of the labels is that of their rows, not of their names."""
    chance = np.random.default_rng(3)
    names = [*LABELS, "ünïcode", "z" * 300, ""]
    rows = [Labelled(str(name) or "x", 0.5) for name in chance.choice(names, 500)]
    drift = compare(document(rows), then_of([document(rows)]))
    assert drift["labels"]["moved"] == 0
    assert [each["now"] for each in drift["labels"]["changes"]] == sorted(
        (each["now"] for each in drift["labels"]["changes"]), reverse=True
    )
