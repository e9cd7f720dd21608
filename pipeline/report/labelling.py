"""The files in which a person labels a sample: CSV for a spreadsheet, tasks of Label Studio, records of Argilla.

Each is written, and each is read when it comes back filled in, in the form that its program exports.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.errors import ConfigError, InputError
from pipeline.report.sample import KEY, Row

COLUMNS = ("row", "file", "text", "label", "score", "human_label", "stratum", "weight", "key")
NEEDED = ("text", "human_label", "key")
FORMS = ("csv", "labelstudio", "argilla")
ENDINGS = {".csv": "csv", ".json": "labelstudio", ".jsonl": "labelstudio"}
# What a spreadsheet takes for a formula, also behind apostrophes of ours.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_WRITTEN_BACK = re.compile(r"'+[=+\-@\t\r]")


def form_of(output: str, form: str | None) -> str:
    """Return the form in which a file is written: the one that is asked for, else by its ending.

    Raises:
        ConfigError: the ending names none, or the two do not go together.
    """
    ending = next((each for each in ENDINGS if output.lower().endswith(each)), None)
    if ending is None:
        raise ConfigError(f"--output: a sample ends in {', '.join(ENDINGS)}, not {output!r}")
    if form is not None and (form == "csv") != (ending == ".csv"):
        fitting = ".csv" if form == "csv" else ".json, or .jsonl"
        raise ConfigError(f"--for {form}: the sample ends in {fitting}, not {output!r}")
    return form or ENDINGS[ending]


def encode_sample(rows: Sequence[Row], output: str, form: str, about: Mapping[str, Any]) -> bytes:
    """Encode a sample as a file; of `about`, Label Studio keeps all, and `model` is who has predicted."""
    if form == "csv":
        return _as_csv(rows)
    model = str(about.get("model") or "classify")
    items = [_task(row, model, about) if form == "labelstudio" else _record(row, model) for row in rows]
    if output.lower().endswith(".jsonl"):
        return b"".join(msgspec.json.encode(item) + b"\n" for item in items)
    return b"[\n" + b",\n".join(map(msgspec.json.encode, items)) + b"\n]\n"


def _as_csv(rows: Iterable[Row]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for row in rows:
        texts = [_safe(each) for each in (row.file, row.text, row.label)]
        score = "" if row.score is None else row.score
        writer.writerow([row.row, *texts, score, "", _safe(row.stratum), row.weight, row.key])
    return b"\xef\xbb\xbf" + file.getvalue().encode()  # by which spreadsheets know UTF-8


def _safe(cell: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _as_it_was(cell: str) -> str:
    return cell[1:] if _WRITTEN_BACK.match(cell) else cell


def _task(row: Row, model: str, about: Mapping[str, Any]) -> dict[str, Any]:
    choice = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [row.label]}}
    return {
        "data": {"text": row.text, **_beside(row), "predicted_label": row.label, "key": row.key},
        "predictions": [{"model_version": model, "score": row.score, "result": [choice]}],
        "meta": dict(about),
    }


def _record(row: Row, model: str) -> dict[str, Any]:
    # A suggestion's score is a probability, and a raw logit none.
    score = row.score if row.score is not None and 0 <= row.score <= 1 else None
    return {
        "id": row.key,
        "fields": {"text": row.text},
        "metadata": _beside(row),
        "suggestions": {"label": {"value": row.label, "score": score, "agent": model}},
        "responses": {},
    }


def _beside(row: Row) -> dict[str, Any]:
    found = {"row": row.row, "stratum": row.stratum, "weight": row.weight}
    return found | ({"file": row.file} if row.file else {})


def decode_sample(content: bytes, path: str) -> list[Row]:
    """Read a sample that was filled in: our CSV, an export of Label Studio (JSON or JSON-MIN), or one of Argilla.

    Raises:
        InputError: it is none of them, or a column or member is missing.
    """
    try:
        text = _text_of(content)
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8; save it as CSV UTF-8") from None
    if text.lstrip()[:1] not in ("[", "{"):
        return _of_csv(text, path)
    try:
        items = _items(text)
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: is not valid JSON: {error}") from None
    rows = []
    for number, item in enumerate(items, 1):
        try:
            rows.append(_of_item(item))
        except _SeveralLabels:
            raise InputError(f"{path}: item {number} has several labels; choose one, the one that fits best") from None
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            missing = f"has no {error.args[0]!r}" if isinstance(error, KeyError) else "is no task or record of a sample"
            raise InputError(f"{path}: item {number} {missing}; export it whole, as JSON") from None
    return rows


def is_sample(content: bytes) -> bool:
    """Return whether this is a sample that `classify sample` wrote, filled in or not."""
    try:
        text = _text_of(content)
        if text.lstrip()[:1] in ("[", "{"):
            keys = [item["id"] if "fields" in item else item.get("data", item)["key"] for item in _items(text)]
        else:
            keys = [row.key for row in _of_csv(text, "")]
        return bool(keys) and all(KEY.fullmatch(key.strip()) for key in keys)
    except (InputError, ValueError, KeyError, TypeError, AttributeError):
        return False


class _SeveralLabels(ValueError):
    """Where one label was asked for."""


def _text_of(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 as spreadsheets save what they call Unicode text."""
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_wide else "utf-8-sig")


def _items(text: str) -> Any:
    """Return the items of a JSON array, or of JSON Lines."""
    return msgspec.json.decode(text) if text.lstrip()[0] == "[" else msgspec.json.Decoder().decode_lines(text)


def _of_csv(text: str, path: str) -> list[Row]:
    head = text.partition("\n")[0]
    delimiter = max((",", ";", "\t"), key=head.count)  # as spreadsheets save it in some countries
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        if missing := [name for name in NEEDED if name not in (reader.fieldnames or ())]:
            raise InputError(f"{path}: no column {missing[0]!r}; it must have those that `classify sample` wrote")
        return [
            _row(row["key"], _as_it_was(row["text"] or ""), _as_it_was((row["human_label"] or "").strip()))
            for row in reader
            if any(row.values())
        ]
    except (csv.Error, ValueError, TypeError) as error:
        raise InputError(f"{path}:{reader.line_num}: {error}; leave all columns but human_label as they were") from None


def _row(key: Any, text: Any, truth: Any) -> Row:
    """Return a row with what is read of it: all else is known of the output."""
    shown = None if truth in (None, "") else str(truth)
    return Row(str(key).strip(), 0, "", str(text), "", None, "", 0.0, shown)


def _of_item(item: dict[str, Any]) -> Row:
    if "fields" in item:
        given = [each for each in (item.get("responses") or {}).get("label", []) if each.get("status") != "discarded"]
        truth = given[-1]["value"] if given else None
        return _row(item["id"], item["fields"]["text"], truth)
    data, read = (item["data"], _of_annotations) if "data" in item else (item, _of_choice)
    return _row(data["key"], data["text"], read(item))


def _of_annotations(task: dict[str, Any]) -> str | None:
    """Return the choice of the last annotation that was not cancelled."""
    for annotation in reversed(task["annotations"]):
        for result in [] if annotation.get("was_cancelled") else annotation["result"]:
            if result["type"] == "choices":
                return _only(result["value"]["choices"])
    return None


def _of_choice(item: dict[str, Any]) -> str | None:
    """Return the choice in an item of JSON-MIN, which has none where none was made."""
    found = item.get("label")
    return None if found is None else found if isinstance(found, str) else _only(found["choices"])


def _only(choices: list[Any]) -> str:
    if len(choices) > 1:
        raise _SeveralLabels
    return str(choices[0])
