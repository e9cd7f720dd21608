"""Which files a command reads: files, globs, directories, days; on a disk and in a store; and where outputs go."""

from __future__ import annotations

import os
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from s3 import Bucket

from pipeline.config import Config, Loader, Run, Writer
from pipeline.errors import ClassifyError, ConfigError, InputError, OutputError, StoreRefused
from pipeline.runs.plan import Plan, plan_of
from pipeline.storage.listing import is_pattern, match_files

TODAY = date(2026, 11, 24)
# What a night's directory may hold; those that begin with a dot or an underscore are nobody's business.
TREE = [
    "a.csv",
    "b.jsonl",
    "c[1].csv",
    "c1.csv",
    "UPPER.CSV",
    "day=2026-11-23/a.csv",
    "day=2026-11-23/b.csv.gz",
    "day=2026-11-24/a.csv",
    "day=2026-11-24/deep/c.parquet",
    "deep/er/d.tsv",
    "deep/er/still/e.ndjson",
    "notes.txt",
    "day=2026-11-23/README",
    "_SUCCESS",
    ".a.csv.checkpoint",
    ".h.csv",
    "_u.csv",
    ".hid/h.csv",
    ".hid/_x/x.csv",
    "_tmp1/t.csv",
    "_tmp1/.h.csv",
    "day=2026-11-23/.x.csv",
    "day=2026-11-23/_x/x.csv",
    "day=2026-11-23/_x/.q.csv",
]
SEEN = [path for path in TREE if not any(part[0] in "._" for part in path.split("/"))]
KNOWN = [path for path in SEEN if path not in ("notes.txt", "day=2026-11-23/README")]
# Patterns below the tree, and what they name there.
PATTERNS = {
    "*.csv": ["a.csv", "c1.csv", "c[1].csv"],
    "*.CSV": ["UPPER.CSV"],
    "?.csv": ["a.csv"],
    "?.*": ["a.csv", "b.jsonl"],
    "*": SEEN,
    "**": SEEN,
    "**/*": SEEN,
    "**/**": SEEN,
    "**/*.csv": [path for path in SEEN if path.endswith(".csv")],
    "**/a.csv": [path for path in SEEN if path.endswith("a.csv")],
    "**/**/a.csv": [path for path in SEEN if path.endswith("a.csv")],
    "**/deep": [path for path in SEEN if "deep/" in path],
    "**/deep/*": [path for path in SEEN if "deep/" in path],
    "day=*": [path for path in SEEN if path.startswith("day=")],
    "day=*/": [path for path in SEEN if path.startswith("day=")],
    "*/": [path for path in SEEN if "/" in path],
    "day=*/*.csv": ["day=2026-11-23/a.csv", "day=2026-11-24/a.csv"],
    "day=*/**": [path for path in SEEN if path.startswith("day=")],
    "day=2026-11-2[3]/*": [path for path in SEEN if path.startswith("day=2026-11-23/")],
    "day=2026-11-2[!3]/a.???": ["day=2026-11-24/a.csv"],
    "[ab].*": ["a.csv", "b.jsonl"],
    "[!a-c]*.csv": [],
    "c[[]1].csv": ["c[1].csv"],
    "*/a.csv": ["day=2026-11-23/a.csv", "day=2026-11-24/a.csv"],
    "*/*/*.parquet": ["day=2026-11-24/deep/c.parquet"],
    "a.csv/*": [],
    "nothing*": [],
}
# Those that ask for hidden names: only that disk and store agree is told of all of them.
HIDDEN = ["_*", ".*", "_tmp*/*.csv", "*/.x.csv", "*/_x/*", "*/_x/*.csv", "**/_x/*.csv", "**/_*.csv", "**/.h.csv"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tree, in a directory `in` of the working directory."""
    make(tmp_path / "in", TREE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "in"


@pytest.fixture
def stored(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The same tree below `in/` of a bucket, which this process can reach."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    for path in TREE:
        bucket.put(f"in/{path}", b"text\na\n")
    return bucket


def make(folder: Path, paths: list[str]) -> None:
    """Small files."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"text\na\n")


def planned(*inputs: str, output: str = "out/", today: date = TODAY, **settings: Any) -> Plan:
    """The plan for these inputs; `settings` are of any section."""
    loader, writer, run = Loader(input=list(inputs)), Writer(output=output), Run()
    config = Config()
    for key, value in settings.items():
        section, name = key.split("_", 1)
        assert section in ("loader", "writer", "run")
        if section == "loader":
            loader = msgspec.structs.replace(loader, **{name: value})
        elif section == "writer":
            writer = msgspec.structs.replace(writer, **{name: value})
        else:
            run = msgspec.structs.replace(run, **{name: value})
    return plan_of(msgspec.structs.replace(config, loader=loader, writer=writer, run=run), today)


def pairs_of(plan: Plan) -> dict[str, str]:
    """Input -> output; nothing is wrong with any of them."""
    assert [pair.trouble for pair in plan.pairs if pair.trouble] == []
    return {os.path.normpath(str(pair.source)): str(pair.output) for pair in plan.pairs}


def same_paths(folder: str, output: str, paths: list[str]) -> dict[str, str]:
    """The plan that keeps the relative paths."""
    return {f"{folder}/{path}": f"{output}/{path}" for path in paths}


def refused(kind: type[ClassifyError], *inputs: str, output: str = "out/", **settings: Any) -> str:
    """The message with which a plan is refused: one line."""
    with pytest.raises(kind) as caught:
        planned(*inputs, output=output, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- directories


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("spelt", ["in", "in/", "./in", "in/.", "in/../in"])
def test_a_directory_is_all_its_files_with_their_paths(spelt: str) -> None:
    """Partitions and nested directories are kept; hidden names and unknown endings are left out; in order."""
    plan = planned(spelt)
    assert not plan.is_single
    assert pairs_of(plan) == same_paths("in", "out", KNOWN)
    assert [str(pair.output) for pair in plan.pairs] == sorted(str(pair.output) for pair in plan.pairs)


@pytest.mark.usefixtures("tree")
def test_with_a_format_given_all_endings_are_taken() -> None:
    """loader.format says what every file in a directory is, so none is of unknown ending; hidden ones stay hidden."""
    assert pairs_of(planned("in", loader_format="csv")) == same_paths("in", "out", SEEN)


@pytest.mark.usefixtures("tree")
def test_without_an_output_a_directory_is_labelled_beside_it() -> None:
    """NAME_labelled, as for a file."""
    assert pairs_of(planned("in/", output="")) == same_paths("in", "in_labelled", KNOWN)


@pytest.mark.parametrize("spelt", [".", "./", "../in"])
def test_a_directory_named_by_dots_is_labelled_beside_it_too(
    spelt: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory has a name: the output stands beside it under that, not under `.`."""
    monkeypatch.chdir(tree)
    outputs = {os.path.realpath(str(pair.output)) for pair in planned(spelt, output="").pairs}
    assert outputs == {str(tree.parent / "in_labelled" / path) for path in KNOWN}


def test_an_output_inside_the_input_is_not_read(tree: Path) -> None:
    """What earlier nights wrote there is no input of this one, however the output is spelt."""
    make(tree, ["labelled/a.csv", "labelled/deep/b.csv", "labelled_by_hand/c.csv"])
    (tree.parent / "link").symlink_to("in/labelled")
    expected = sorted([*KNOWN, "labelled_by_hand/c.csv"])
    for output in ("in/labelled/", "in/labelled", "./in/../in/labelled/", "link/"):
        plan = planned("in", output=output)
        assert sorted(os.path.relpath(str(pair.source), "in") for pair in plan.pairs) == expected
    globbed = planned("in/**/*.csv", output="in/labelled/")
    assert [pair for pair in globbed.pairs if "/labelled/" in str(pair.source)] == []


@pytest.mark.usefixtures("tree")
def test_an_input_inside_the_output_is_read() -> None:
    """`-i in/deep -o in/` puts outputs beside other inputs; those that are read are no outputs of this command."""
    assert pairs_of(planned("in/deep", output="in/")) == same_paths("in/deep", "in", ["er/d.tsv", "er/still/e.ndjson"])
    assert pairs_of(planned("in/deep/*", output="./")) == {
        "in/deep/er/d.tsv": "./er/d.tsv",
        "in/deep/er/still/e.ndjson": "./er/still/e.ndjson",
    }


@pytest.mark.usefixtures("tree")
def test_an_output_directory_that_is_a_file_is_refused() -> None:
    """Several inputs can't go into a file."""
    assert "in/a.csv" in refused(OutputError, "in", output="in/a.csv")
    assert "slash" in refused(ConfigError, "in", output="new")
    assert refused(ConfigError, "in/a.csv", "in/b.jsonl", output="new.csv")


# -- patterns


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_names_these_files(pattern: str) -> None:
    """Names are relative to the first part with a wildcard; a directory that is named stands for all files in it."""
    found = match_files(f"in/{pattern}")
    assert [path for path, _ in found] == sorted(PATTERNS[pattern])
    assert all(Path(location.path).samefile(f"in/{path}") for path, location in found)


@pytest.mark.usefixtures("tree")
def test_a_pattern_that_says_so_names_hidden_files() -> None:
    """A dot or an underscore at the start of a part of the pattern is for names that begin so."""
    assert [path for path, _ in match_files("in/_*.csv")] == ["_u.csv"]
    assert [path for path, _ in match_files("in/.h*.csv")] == [".h.csv"]
    assert [path for path, _ in match_files("in/*/_x/*.csv")] == ["day=2026-11-23/_x/x.csv"]


def test_a_store_gives_the_same_answers(tree: Path, stored: Bucket) -> None:
    """Every pattern names the same objects as files on a disk, hidden ones as well."""
    assert tree.is_dir()
    near, far, at = {}, {}, {}
    for pattern in [*PATTERNS, *HIDDEN]:
        near[pattern] = [path for path, _ in match_files(f"in/{pattern}")]
        found = match_files(stored.uri(f"in/{pattern}"))
        far[pattern], at[pattern] = [path for path, _ in found], [str(location) for _, location in found]
    assert far == near
    assert at == {pattern: [stored.uri(f"in/{path}") for path in paths] for pattern, paths in near.items()}


def test_a_prefix_of_a_store_is_a_directory(tree: Path, stored: Bucket) -> None:
    """The same plan for the same tree, from and to a store; what is not there is refused."""
    assert tree.is_dir()
    far = planned(stored.uri("in/"), output=stored.uri("in/out/"))
    assert pairs_of(far) == {
        stored.uri(f"in/{path}").replace("//", "/"): stored.uri(f"in/out/{path}") for path in KNOWN
    }
    stored.put("in/out/a.csv", b"text\na\n")
    assert pairs_of(planned(stored.uri("in"), output=stored.uri("in/out/"))) == pairs_of(far)
    assert stored.uri("gone*.csv") in refused(InputError, stored.uri("gone*.csv"))
    assert "nobody-has-it" in refused(StoreRefused, "s3://nobody-has-it/*.csv")


def test_a_file_uri_may_be_a_directory_or_a_pattern(tree: Path) -> None:
    """file:// with escapes: the same files as by path."""
    make(tree, ["with space/x.csv"])
    assert pairs_of(planned(f"file://{tree}/deep")) == same_paths(
        f"{tree}/deep", "out", ["er/d.tsv", "er/still/e.ndjson"]
    )
    assert pairs_of(planned(f"file://{tree}/with%20space/*.csv")) == {f"{tree}/with space/x.csv": "out/x.csv"}
    assert pairs_of(planned(f"file://{tree}/with%20*/*.csv")) == {f"{tree}/with space/x.csv": "out/with space/x.csv"}


@pytest.mark.usefixtures("tree")
def test_a_pattern_is_taken_by_its_word_and_its_directories_are_not() -> None:
    """A file of unknown ending that a pattern names is tried; one in a directory that it names is skipped."""
    assert "in/notes.txt" in pairs_of(planned("in/n*"))
    assert "in/day=2026-11-23/README" not in pairs_of(planned("in/day=*"))


COMPONENT = st.sampled_from(["a", "b", "ab", ".h", "_u"])
FILE = st.sampled_from(["a.csv", "b.csv", "ab.csv", ".h.csv", "_u.csv", "a.c"])
PATHS = st.lists(st.tuples(st.lists(COMPONENT, max_size=2), FILE).map(lambda pair: "/".join([*pair[0], pair[1]])))
PART = st.sampled_from(
    ["*", "?", "**", "a", "b", "a*", "*b", "[ab]", "[!a]", "?b", "*.csv", "[ab].csv", "a?.csv", "a**"]
)
PATTERN = st.lists(PART, min_size=1, max_size=3).map("/".join).filter(is_pattern)


def fits(name: str, part: str) -> bool:
    """Whether a part of a pattern fits a name: the definition, character by character."""
    if not part:
        return not name
    if part[0] == "*":
        return any(fits(name[start:], part[1:]) for start in range(len(name) + 1))
    if not name:
        return False
    if part[0] == "[":
        wanted, _, rest = part[1:].partition("]")
        is_in = name[0] in wanted.removeprefix("!")
        return is_in != wanted.startswith("!") and fits(name[1:], rest)
    return part[0] in ("?", name[0]) and fits(name[1:], part[1:])


def is_named(names: list[str], parts: list[str]) -> bool:
    """Whether a pattern fits a path or a directory above it."""
    if not parts:
        return True
    if parts[0] == "**":
        return any(is_named(names[start:], parts[1:]) for start in range(len(names) + 1)) and bool(names)
    return bool(names) and fits(names[0], parts[0]) and is_named(names[1:], parts[1:])


@given(PATHS, PATTERN)
@example(["a/a.csv"], "a/**")
@example(["a.csv"], "*/**")
@example(["a/b/a.csv", "b/a.csv"], "**/b")
@example(["a/_u/a.csv", "a/.h.csv"], "**")
def test_any_pattern_names_what_it_says(paths: list[str], pattern: str) -> None:
    """Of any small tree a pattern names what an independent reading of it names, without hidden names."""
    expected = {
        path
        for path in paths
        if not any(part[0] in "._" for part in path.split("/")) and is_named(path.split("/"), pattern.split("/"))
    }
    first = next(index for index, part in enumerate(pattern.split("/")) if is_pattern(part))
    named = "".join(f"{part}/" for part in pattern.split("/")[:first])
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), paths)
        found = match_files(f"{folder}/{pattern}")
    assert [named + path for path, _ in found] == sorted(expected)


# -- literal names


@pytest.mark.usefixtures("tree")
def test_a_file_that_is_there_is_no_pattern() -> None:
    """A name that holds `[` is that file where there is one, alone and among several; else it is a pattern."""
    assert planned("in/c[1].csv", output="out.csv").is_single
    assert pairs_of(planned("in/c[1].csv", "in/a.csv")) == {"in/c[1].csv": "out/c[1].csv", "in/a.csv": "out/a.csv"}
    Path("in/c[1].csv").unlink()
    assert pairs_of(planned("in/c[1].csv")) == {"in/c1.csv": "out/c1.csv"}


@pytest.mark.usefixtures("tree")
def test_a_directory_that_is_there_is_no_pattern() -> None:
    """The same for a directory, with or without a name for the output."""
    make(Path("dir[1]"), ["x.csv"])
    assert pairs_of(planned("dir[1]")) == {"dir[1]/x.csv": "out/x.csv"}
    assert pairs_of(planned("dir[1]", output="")) == {"dir[1]/x.csv": "dir[1]_labelled/x.csv"}


def test_names_may_be_any_bytes(tree: Path) -> None:
    """Of a name that is no UTF-8 the bytes are kept."""
    name = os.fsdecode(b"in/gr\xfc\xdfe \n.csv")
    (tree.parent / name).write_bytes(b"text\na\n")
    assert name.replace("in/", "out/") in pairs_of(planned("in")).values()
    assert name.replace("in/", "out/") in pairs_of(planned("in/gr*")).values()


# -- several


@pytest.mark.usefixtures("tree")
def test_files_directories_and_patterns_together() -> None:
    """A file goes into the output directory under its name, the others with their relative paths; in that order."""
    plan = planned("in/day=2026-11-23/a.csv", "in/deep", "in/?.jsonl")
    assert [str(pair.output) for pair in plan.pairs] == [
        "out/a.csv",
        "out/er/d.tsv",
        "out/er/still/e.ndjson",
        "out/b.jsonl",
    ]
    assert [str(folder) for folder in plan.folders] == ["out/"]


@pytest.mark.usefixtures("tree")
def test_the_same_file_named_twice_is_one() -> None:
    """By another spelling, through a symlink to its directory, by a pattern that names it as well."""
    Path("link").symlink_to("in")
    plan = planned("in/a.csv", "./in/../in/a.csv", "in/[a].csv", "link/a.csv")
    assert pairs_of(plan) == {"in/a.csv": "out/a.csv"}


@pytest.mark.usefixtures("tree")
def test_two_files_for_one_output_are_both_named() -> None:
    """The same name from two directories, or the same name but for the ending: nothing is done."""
    message = refused(ConfigError, "in/a.csv", "in/day=2026-11-23/a.csv")
    assert "in/a.csv" in message
    assert "in/day=2026-11-23/a.csv" in message
    assert "out/a.csv" in message
    message = refused(ConfigError, "in/c1.csv", "in/day=2026-11-23", "in/day=2026-11-24")
    assert "in/day=2026-11-23/a.csv" in message
    assert "in/day=2026-11-24/a.csv" in message
    make(Path("in"), ["a.jsonl"])
    message = refused(ConfigError, "in", writer_format="parquet")
    assert "in/a.csv" in message
    assert "in/a.jsonl" in message
    assert "out/a.parquet" in message


@pytest.mark.usefixtures("tree")
def test_the_ending_follows_the_format() -> None:
    """writer.format names the ending of every output, a compression's goes; those that have it already stay."""
    make(Path("more"), ["a.b.csv", "day=1.5/c.csv.gz", "d.jsonl.zst", "e.parquet", "F.CSV.GZ"])
    assert sorted(pairs_of(planned("more", writer_format="parquet")).values()) == [
        "out/F.parquet",
        "out/a.b.parquet",
        "out/d.parquet",
        "out/day=1.5/c.parquet",
        "out/e.parquet",
    ]
    assert pairs_of(planned("more/*.zst", writer_format="jsonl")) == {"more/d.jsonl.zst": "out/d.jsonl.zst"}
    assert pairs_of(planned("more/a*", writer_format="tsv")) == {"more/a.b.csv": "out/a.b.tsv"}


@pytest.mark.usefixtures("tree")
def test_several_inputs_need_a_directory_as_output() -> None:
    """Without one, with a pattern, or with standard output: refused, and the way out is named."""
    for inputs in (("in/a.csv", "in/b.jsonl"), ("in/*.csv",), ("in", "in/a.csv")):
        assert "--output" in refused(ConfigError, *inputs, output="")
    for inputs in (("in/a.csv", "in/b.jsonl"), ("in",), ("in/*.jsonl",)):
        assert "--output" in refused(ConfigError, *inputs, output="-")


@pytest.mark.usefixtures("tree")
def test_standard_input_stands_alone() -> None:
    """`-` with files is refused."""
    assert "standard input" in refused(ConfigError, "in/a.csv", "-")
    assert "standard input" in refused(ConfigError, "-", "-")
    assert "--input" in refused(ConfigError)


# -- nothing there


@pytest.mark.usefixtures("tree")
def test_nothing_that_matches_is_refused_or_no_work() -> None:
    """A pattern or a directory without a file: exit 2 that names it; with run.allow_empty nothing is to be done."""
    Path("empty/_hidden").mkdir(parents=True)
    for nothing in ("in/gone*.csv", "gone/**/*.csv", "empty"):
        assert nothing in refused(InputError, nothing)
        assert planned(nothing, run_allow_empty=True).pairs == []


@pytest.mark.usefixtures("tree")
def test_what_is_missing_among_several_is_told_apart() -> None:
    """The other files are classified; a missing file is found missing when it is opened."""
    plan = planned("in/a.csv", "in/gone*.csv", "gone.csv")
    troubles = {str(pair.source): pair.trouble for pair in plan.pairs}
    assert troubles["in/a.csv"] is None
    assert isinstance(troubles["in/gone*.csv"], InputError)
    assert "gone.csv" in troubles
    assert pairs_of(planned("in/a.csv", "in/gone*.csv", "gone.csv", run_allow_empty=True)) == {"in/a.csv": "out/a.csv"}


# -- days


@pytest.mark.usefixtures("tree")
def test_every_day_of_a_range_has_its_files() -> None:
    """`{date}` in input and output, one file or one directory a day."""
    plan = planned("in/day={date}", output="out/{date:%Y/%m/%d}/", run_date="2026-11-23..2026-11-24")
    assert pairs_of(plan) == {
        "in/day=2026-11-23/a.csv": "out/2026/11/23/a.csv",
        "in/day=2026-11-23/b.csv.gz": "out/2026/11/23/b.csv.gz",
        "in/day=2026-11-24/a.csv": "out/2026/11/24/a.csv",
        "in/day=2026-11-24/deep/c.parquet": "out/2026/11/24/deep/c.parquet",
    }
    assert [str(folder) for folder in plan.folders] == ["out/2026/11/23/", "out/2026/11/24/"]
    plan = planned("in/day={date}/a.csv", output="{date}.csv", run_date="yesterday..today")
    assert pairs_of(plan) == {
        "in/day=2026-11-23/a.csv": "2026-11-23.csv",
        "in/day=2026-11-24/a.csv": "2026-11-24.csv",
    }


@pytest.mark.usefixtures("tree")
def test_without_a_date_it_is_today() -> None:
    """The day of the start, and no other."""
    plan = planned("in/day={date}/a.csv", output="{date}.csv")
    assert plan.is_single
    assert pairs_of(plan) == {"in/day=2026-11-24/a.csv": "2026-11-24.csv"}


@pytest.mark.usefixtures("tree")
def test_days_that_share_an_output_are_refused() -> None:
    """Two days into one file would lose one of them: both inputs and the output are named."""
    for output in ("out.csv", "out/{date:%Y}/"):
        message = refused(ConfigError, "in/day={date}/a.csv", output=output, run_date="2026-11-23..2026-11-24")
        assert "in/day=2026-11-23/a.csv" in message
        assert "in/day=2026-11-24/a.csv" in message


@pytest.mark.usefixtures("tree")
def test_several_days_do_not_go_to_standard_output() -> None:
    """`-` takes the rows of one file; of two days it is refused, and not the name of a file."""
    message = refused(ConfigError, "in/day={date}/a.csv", output="-", run_date="2026-11-23..2026-11-24")
    assert "--output" in message
    assert planned("in/day={date}/a.csv", output="-", run_date="2026-11-23").is_single


@pytest.mark.usefixtures("tree")
def test_a_day_without_a_file_is_told_or_passed_over() -> None:
    """A day whose directory or pattern has nothing is told with its path; run.allow_empty passes over it."""
    days: dict[str, Any] = {"run_date": "2026-11-22..2026-11-23"}
    plan = planned("in/day={date}/*.csv", output="out/{date}/", **days)
    assert [str(pair.source) for pair in plan.pairs if pair.trouble] == ["in/day=2026-11-22/*.csv"]
    passed = planned("in/day={date}/*.csv", output="out/{date}/", run_allow_empty=True, **days)
    assert pairs_of(passed) == {"in/day=2026-11-23/a.csv": "out/2026-11-23/a.csv"}
    passed = planned("in/day={date}/a.csv", output="out/{date}.csv", run_allow_empty=True, **days)
    assert pairs_of(passed) == {"in/day=2026-11-23/a.csv": "out/2026-11-23.csv"}


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("days", ["2026-11-22", "2026-11-21..2026-11-22"])
def test_a_night_without_its_file_is_no_work_if_that_is_allowed(days: str) -> None:
    """run.allow_empty is as good for one day as for two: a dated file that did not come is nothing to do."""
    plan = planned("in/day={date}/a.csv", output="out/{date}.csv", run_date=days, run_allow_empty=True)
    assert plan.pairs == []
    assert not plan.is_single
