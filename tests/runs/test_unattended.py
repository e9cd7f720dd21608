"""What goes wrong around a run that nobody watches: files that change or appear, and servers that lie."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import NOWHERE, Command, complaint
from fake import Action, FakeServer, hang, label_of, refuse, reply, reset

from pipeline.checkpoint import Lock
from pipeline.config import Run
from pipeline.errors import OutputError
from pipeline.servers.limiter import Limiter
from pipeline.servers.model import CANARY
from pipeline.servers.slots import Slots
from pipeline.storage import list_files, local


def write(path: Path, texts: list[str]) -> Path:
    """A CSV of these texts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text\n" + "".join(f"{text}\n" for text in texts))
    return path


def labels(path: Path) -> list[str]:
    """The labels in a CSV, row by row."""
    return [line.split(",")[1] for line in path.read_text().splitlines()[1:]]


# -- servers


def test_a_row_that_brings_a_503_every_time_costs_one_row(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Envoy says so where the server behind it crashed: the others are answered, and the night ends."""
    write(tmp_path / "in.csv", [*(f"text {n}" for n in range(100)), "poison"])
    fake.rules.append((lambda text: text == "poison", refuse(503, "upstream connect error")))
    times = ("retry.base_delay_s=0.01", "retry.max_delay_s=0.05", "server.wait_s=5")
    sets = [flag for each in times for flag in ("--set", each)]
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, *sets, expect=3)
    assert labels(tmp_path / "out.csv") == [*(label_of(f"text {n}") for n in range(100)), ""]
    assert "server_error" in (tmp_path / "out.csv").read_text().splitlines()[-1]
    assert max(count for text, count in fake.answered.items() if text not in CANARY) == 1


def test_a_server_that_refuses_everything_is_left_in_peace_after_a_resume_too(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """What it answered last night is no sign that it is well tonight."""
    write(tmp_path / "in.csv", [f"text {n}" for n in range(2000)])
    command = ("run", "in.csv", "-o", "out.csv", "--url", fake.url)
    classify(*command, "--limit-rows", "5")
    fake.each = lambda texts: None if texts == list(CANARY) else refuse(400, "no such lora")
    assert "none was answered" in classify(*command, expect=2).stderr


def test_a_server_may_not_hold_a_run_up_for_longer_than_it_is_waited_for(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """One request is told to come back in an hour, while all others are answered."""
    write(tmp_path / "in.csv", [f"text {n}" for n in range(300)])
    began = time.monotonic()
    sizes = ("--set", "request.rows=100", "--set", "server.wait_s=1")
    refused = list[list[str]]()

    def once(texts: list[str]) -> object:
        if texts == list(CANARY) or refused:
            return None
        refused.append(texts)
        return refuse(429, "quota", Retry_After="3600")

    fake.each = once  # type: ignore[assignment]
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, *sizes)
    assert refused
    assert time.monotonic() - began < 60
    assert labels(tmp_path / "out.csv") == [label_of(f"text {n}") for n in range(300)]


def test_check_asks_a_server_that_is_there(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The first of two is down: as `run` does, it goes on without it."""
    write(tmp_path / "in.csv", ["a"])
    shown = classify("check", "in.csv", *NOWHERE, "--url", fake.url)
    assert "going on without it" in shown.stderr
    assert "3 classes" in shown.stdout


async def test_slots_on_one_server_do_not_depend_on_another_s_load() -> None:
    """One server is over its limit, which has shrunk: those who wait get the slots of the other."""

    class Server:
        """What the slots see of an endpoint."""

        may_be_asked, is_reserved = True, False

        def __init__(self, limit: int) -> None:
            self.limiter = Limiter(limit)
            self.texts_in_flight = 0

        def has_room_for(self, _: int) -> bool:
            """Tell whether a slot is free."""
            return self.limiter.load < 1

    crowded, free = Server(8), Server(2)
    slots, done, hold = Slots([crowded, free]), [], asyncio.Event()  # type: ignore[list-item]

    async def ask() -> None:
        async with slots.take() as server:
            await (hold.wait() if server is crowded else asyncio.sleep(0.001))  # type: ignore[comparison-overlap]
        done.append(server)

    first = [asyncio.ensure_future(ask()) for _ in range(10)]
    await asyncio.sleep(0)
    crowded.limiter.limit = 2  # what a refusal does
    more = [asyncio.ensure_future(ask()) for _ in range(6)]
    await asyncio.wait(more, timeout=5)
    assert all(task.done() for task in more)
    hold.set()
    await asyncio.gather(*first, *more)


# -- time


@pytest.mark.slow
def test_the_deadline_is_that_of_the_command(tmp_path: Path, fake: FakeServer) -> None:
    """A pipe that takes long takes its time from the same account."""
    fake.rules.append((lambda text: text == "slow", hang()))
    run = (
        f"{sys.executable} -m pipeline run -i - -o {tmp_path}/out.jsonl --url {fake.url} --set run.deadline=2s --quiet"
    )
    done = subprocess.run(
        ["bash", "-c", f'(sleep 6; echo \'{{"text": "slow"}}\') | {run}'],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "slow" not in fake.texts


def test_a_night_may_have_an_hour_more_or_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the clocks change, a deadline stays the time of day that it is."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        for day, hours in (
            (datetime(2026, 3, 29, 0, 30, tzinfo=UTC), 3.5),
            (datetime(2026, 10, 24, 23, 30, tzinfo=UTC), 5.5),
        ):
            assert Run(deadline="06:00").seconds_left(day) == hours * 3600
    finally:
        monkeypatch.undo()
        time.tzset()


# -- files


def test_an_input_that_changes_between_two_samples_gets_no_labels(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Size and samples are as they were: the run says so, and so does the next one."""
    source = write(tmp_path / "in.csv", [f"text {n:06} {'x' * 700}" for n in range(9000)])
    place = source.read_bytes().index(b"text 004567")
    changed = threading.Event()

    def change(texts: list[str]) -> None:
        if texts != list(CANARY) and not changed.is_set():
            with source.open("r+b") as file:
                file.seek(place)
                file.write(b"TEXT")
            changed.set()

    fake.each = change
    command = ("run", "in.csv", "-o", "out.csv", "--url", fake.url)
    complaint(classify(*command, expect=2), "in.csv", "changed while it was read")
    assert not (tmp_path / "out.csv").exists()
    complaint(classify(*command, expect=2), "changed", "on_changed_input")
    classify(*command, "--set", "run.on_changed_input=restart")
    assert labels(tmp_path / "out.csv")[4567] == label_of(f"TEXT 004567 {'x' * 700}")


@pytest.mark.parametrize("many", [False, True])
def test_what_somebody_else_puts_at_the_output_s_place_stays(
    many: bool, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """While the run goes on: exit 2, and with --overwrite nothing is asked again."""
    write(tmp_path / "in/a.csv", [f"text {n}" for n in range(5)])
    (tmp_path / "out").mkdir()

    def precious(texts: list[str]) -> None:
        if texts != list(CANARY):
            (tmp_path / "out/a.csv").write_text("precious")

    fake.each = precious
    command = ("run", "in/" if many else "in/a.csv", "-o", "out/", "--url", fake.url)
    assert "somebody else" in classify(*command, expect=2).stderr
    assert (tmp_path / "out/a.csv").read_text() == "precious"
    fake.each = lambda _: None
    classify(*command, "--overwrite")
    assert len(labels(tmp_path / "out/a.csv")) == 5
    assert max(fake.answered[f"text {n}"] for n in range(5)) == 1


def test_an_output_is_a_regular_file(tmp_path: Path, classify: Command) -> None:
    """A pipe would wait for ever for a reader, and a device would be replaced."""
    write(tmp_path / "in.csv", ["a"])
    os.mkfifo(tmp_path / "out.csv")
    for name in ("out.csv", "/dev/null"):
        done = classify("run", "in.csv", "-o", name, *NOWHERE, "--set", "writer.format=csv", expect=2)
        complaint(done, "no regular file")


@pytest.mark.parametrize("in_the_way", [".b.csv.tmp", ".b.csv.run.json"])
def test_one_output_that_can_t_be_written_does_not_keep_others_back(
    in_the_way: str, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Small files are published together; one of them has something in the way of its draft, or of its record."""
    for name in "abc":
        write(tmp_path / f"in/{name}.csv", [f"text {name}"])
    (tmp_path / "out" / in_the_way).mkdir(parents=True)
    done = classify("run", "in/", "-o", "out/", "--url", fake.url, expect=2)
    assert "b.csv" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("?.csv")) == ["a.csv", "c.csv"]
    (tmp_path / "out" / in_the_way).rmdir()
    classify("run", "in/", "-o", "out/", "--url", fake.url)
    assert max(fake.answered[f"text {name}"] for name in "abc") == 1


def test_links_are_followed_and_those_to_nothing_are_named(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A partition that is mounted elsewhere is read, a circle is walked once, a missing file is an error."""
    write(tmp_path / "elsewhere/day=2/b.csv", ["b"])
    write(tmp_path / "in/a.csv", ["a"])
    (tmp_path / "in/day=2").symlink_to(tmp_path / "elsewhere/day=2")
    (tmp_path / "in/circle").symlink_to(tmp_path / "in")
    assert list_files(local(str(tmp_path / "in"))) == ["a.csv", "day=2/b.csv"]
    classify("run", "in/", "-o", "out/", "--url", fake.url)
    (tmp_path / "in/gone.csv").symlink_to(tmp_path / "nowhere.csv")
    assert "gone.csv" in classify("run", "in/", "-o", "out/", "--url", fake.url, expect=2).stderr


def test_outputs_below_the_input_are_no_inputs_behind_a_link_either(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """The first file is a link to somewhere else; the second night has the same two files."""
    write(tmp_path / "data/a.csv", ["a"])
    write(tmp_path / "in/b.csv", ["b"])
    (tmp_path / "in/a.csv").symlink_to(tmp_path / "data/a.csv")
    for _ in range(2):
        classify("run", "in/", "-o", "in/out/", "--url", fake.url)
    assert sorted(path.name for path in (tmp_path / "in/out").glob("[!.]*")) == ["a.csv", "b.csv"]


def test_a_damaged_record_hides_no_other_file(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """`status` counts the files that can be read; a record that is no UTF-8 is no record of ours."""
    for name in "ab":
        write(tmp_path / f"in/{name}.csv", [name])
    classify("run", "in/", "-o", "out/", "--url", fake.url)
    (tmp_path / "out/.a.csv.run.json").write_bytes(b"\xff{")
    shown = classify("status", "out/").stdout
    assert "1 complete" in shown
    assert "1 unreadable" in shown
    assert "not made by this program" in classify("run", "in/", "-o", "out/", "--url", fake.url, expect=2).stderr


@pytest.mark.slow
def test_data_on_a_closed_standard_output_is_an_error(tmp_path: Path, fake: FakeServer) -> None:
    """As it is for `cat`: the rows would be nowhere."""
    write(tmp_path / "in.csv", ["a"])
    for command in (f"run in.csv -o - --url {fake.url}", f"text a --url {fake.url}"):
        line = f"{sys.executable} -m pipeline {command} >&-"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 75, done.stderr
        assert "standard output can't be written" in done.stderr or "can't be written" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_default_output_has_the_ending_of_its_format(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Without -o, too."""
    write(tmp_path / "in.csv", ["a"])
    classify("run", "in.csv", "--url", fake.url, "--set", "writer.format=parquet")
    assert pq.read_table(tmp_path / "in_labelled.parquet").num_rows == 1


def test_check_sees_what_a_format_can_t_hold(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """As `run` would say it."""
    pq.write_table(pa.table({"text": ["a"], "m": pa.array([[1]], pa.list_view(pa.int64()))}), tmp_path / "in.parquet")
    said = [
        classify(each, "in.parquet", "-o", "out.csv", "--url", fake.url, expect=2).stderr for each in ("check", "run")
    ]
    assert said[0].split(" (")[0] == said[1].split(" (")[0]


def test_paths_that_are_no_text_are_no_bugs(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The record shows them as far as that goes; and a `~` after --set is the home directory, as in a config."""
    write(tmp_path / "in.csv", ["a"])
    state = os.fsdecode(os.fsencode(tmp_path) + b"/st\xff")
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, "--set", f"run.state_dir={state}")
    metrics = ("--set", "run.metrics_file=~/job.prom")
    classify("run", "in.csv", "-o", "two.csv", "--url", fake.url, *metrics, env={"HOME": str(tmp_path)})
    assert (tmp_path / "job.prom").exists()


# -- locks


def test_a_lock_that_fails_is_not_held(tmp_path: Path) -> None:
    """Its directory can't be made; when that is mended, the same process may have it."""
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(OutputError), Lock(tmp_path / "state.lock", tmp_path / "state"):
        pass
    (tmp_path / "state").unlink()
    with Lock(tmp_path / "state.lock", tmp_path / "state"):
        pass


# -- what a config and a server may say


def test_another_model_s_name_in_the_answers_stops_the_run(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A gateway moves to another version meanwhile: nothing of it is kept, though its classes have the same names."""
    write(tmp_path / "in.csv", [f"text {n}" for n in range(400)])
    moved = threading.Event()

    def answer(texts: list[str]) -> Action | None:
        if "text 200" in texts:
            moved.set()
        return reply(200, json.dumps(fake.answer(texts) | {"model": "v2"})) if moved.is_set() else None

    fake.each = answer
    sizes = ("--set", "request.rows=20", "--set", "request.concurrency=1")
    command = ("run", "in.csv", "-o", "out.csv", "--url", fake.url, *sizes)
    complaint(classify(*command, expect=2), "another model", "v2")
    assert not (tmp_path / "out.csv").exists()
    fake.each = lambda _: None
    classify(*command)
    assert labels(tmp_path / "out.csv") == [label_of(f"text {n}") for n in range(400)]


def test_what_a_row_gets_does_not_depend_on_who_was_asked(tmp_path: Path, classify: Command) -> None:
    """No address in the error of a row that breaks the connection: two servers, the same bytes."""
    write(tmp_path / "in.csv", ["fine", "poison"])
    made = []
    for name in ("one.csv", "two.csv"):
        with FakeServer() as server:
            server.rules.append((lambda text: text == "poison", reset()))
            quick = ("--set", "retry.base_delay_s=0.01", "--set", "retry.max_delay_s=0.02")
            classify("run", "in.csv", "-o", name, "--url", server.url, *quick, expect=3)
        made.append((tmp_path / name).read_text())
    assert made[0] == made[1]
    assert "127.0.0.1" not in made[0]
    assert "server_error: " in made[0]


def test_a_flag_beats_the_config_s_template(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """-t says which column is sent, whatever the file says."""
    (tmp_path / "in.csv").write_text("id,text\nthe id,the text\n")
    (tmp_path / "job.toml").write_text('[loader]\ninput = "in.csv"\ntemplate = "{text}"\n')
    classify("run", "job.toml", "-t", "id", "-o", "out.csv", "--url", fake.url)
    assert set(fake.answered) - set(CANARY) == {"the id"}


def test_what_json_has_no_words_for_is_a_mistake_in_the_config(tmp_path: Path, classify: Command) -> None:
    """TOML has dates and infinity; neither can be sent."""
    write(tmp_path / "in.csv", ["a"])
    for value in ("{x=2020-01-01}", "{x=inf}"):
        complaint(classify("run", "in.csv", *NOWHERE, "--set", f"request.extra={value}", expect=2), "request.extra")


def test_a_parquet_column_without_a_type_is_a_column_of_empty_texts(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """What pandas makes of a column in which every value is None."""
    pq.write_table(pa.table({"text": pa.nulls(3), "n": [1, 2, 3]}), tmp_path / "in.parquet")
    classify("run", "in.parquet", "-o", "out.parquet", "--url", fake.url)
    assert pq.read_table(tmp_path / "out.parquet")["predicted_error"].to_pylist()[0].startswith("empty")


def test_parquet_has_no_second_ending(tmp_path: Path, classify: Command) -> None:
    """It would be no gzip file."""
    write(tmp_path / "in.csv", ["a"])
    complaint(classify("run", "in.csv", "-o", "out.parquet.gz", *NOWHERE, expect=2), "writer.compression")
