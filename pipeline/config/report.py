"""The section `report` of the config, as `sections` has the others."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from pipeline.config.masking import mask_uri

LAST = re.compile(r"last(?: ([1-9]\d{0,2}))?")  # values of report.against that are no path
REPORT_ENDINGS = (".html", ".md", ".json")
LIMITS = {  # of `report.limits`, by check
    "label_shift": 0.10,
    "score_shift": 0.10,
    "failed_rise": 0.01,
    "canary": 0.001,
    "one_label": 0.95,
    "accuracy_drop": 0.02,
    "min_accuracy": 0.0,
    "ece": 0.05,
}
Check = Literal["drift", "regression", "calibration"]


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of the labels in the end, what they are compared with, and when a person should look.

    A run makes a report if `output`, `history` or `fail_on` is set. `classify report` makes one of any output.
    """

    output: str | list[str] | None = None
    """The report: a file that ends in `.html`, `.md` or `.json`, or only such an ending for `NAME.report` beside the
    output; a list for several. The numbers are always written as JSON, too, with the same name.

    Example: [".html", ".md"]
    """
    truth: str | None = None
    """A column of the input with the right label. Rows where it is null or empty are not judged.

    Example: "language"
    """
    truth_map: dict[str, str] = {}
    """What values of the truth are called by the model.

    Example: { "1" = "negative", "2" = "positive" }
    """
    against: str | None = None
    """What the labels are compared with: `"last"` for the last run of this output that did not fail, `"last 7"` for the
    sum of seven, an output, or the JSON of a report.

    Example: "last"
    """
    history: str | None = None
    """A file that gets one line of JSON a run, without texts; `"last"` is looked up there.

    Default: `.NAME.history.jsonl` beside the output, if `against` is `"last"`.

    Example: "reviews.history.jsonl"
    """
    fail_on: list[Check] = []
    """The kinds of checks that make the exit code 5 when they fail: `"drift"`, `"regression"`, `"calibration"`."""
    on_fail: Literal["publish", "hold"] = "publish"
    """What becomes of the output when a check of these kinds fails: `"publish"`, or `"hold"`, which leaves the last one
    in its place. The new one waits as `NAME.held.EXT` for `classify accept`."""
    examples: Annotated[int, msgspec.Meta(ge=0, le=100)] = 3
    """How many rows of each kind are shown with their text. With 0 no text of a row is in a report."""
    limits: dict[str, float] = {}
    """Beyond these a check is a warning, or fails; see the page on the report for the checks and the defaults.

    Example: { label_shift = 0.2, min_accuracy = 0.9 }
    """

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if name not in LIMITS:
                raise ValueError(f"report.limits.{name}: there is no such check; the checks are {', '.join(LIMITS)}")
            if not 0 <= limit <= 1:
                raise ValueError(f"report.limits.{name} is a share from 0 to 1, not {limit}")
        if self.on_fail == "hold" and not self.fail_on:
            raise ValueError('report.on_fail = "hold" needs report.fail_on, the kinds of checks that hold an output')
        for output in self.outputs:
            if not output.endswith(REPORT_ENDINGS):
                raise ValueError(f"report.output ends in {', '.join(REPORT_ENDINGS)}, not {mask_uri(output)!r}")

    @property
    def outputs(self) -> list[str]:
        """The files to write, in the order given."""
        return [self.output] if isinstance(self.output, str) else list(self.output or ())

    @property
    def nights(self) -> int:
        """How many of the last runs are compared with, 0 if it is something else."""
        found = LAST.fullmatch(self.against or "")
        return int(found[1] or 1) if found else 0

    @property
    def holds(self) -> bool:
        """Whether an output waits until its report has passed."""
        return self.on_fail == "hold"

    @property
    def is_wanted(self) -> bool:
        """Whether a run makes a report."""
        return bool(self.outputs or self.history or self.fail_on)
