"""What a person sees of a run: the bar, the lines, and messages that come again and again."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import run_arguments, wait_until_answered
from fake import FakeServer, label_of
from files import rows_of, write
from tqdm import tqdm

from pipeline.monitoring.progress import BAR_WIDTH, Progress


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the progress."""
    clock = Clock()
    monkeypatch.setattr("pipeline.monitoring.progress.time", SimpleNamespace(monotonic=clock))
    return clock


def shown(progress: Progress, columns: int) -> str:
    """Return the line that tqdm makes of the bar's format."""
    return str(
        tqdm.format_meter(
            progress.rows_done, progress.rows_total or 0, 1, ncols=columns, bar_format=progress.bar_format(columns)
        )
    )


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_line_fits_with_a_bar_that_can_be_seen(columns: int, clock: Clock) -> None:
    """However much there is to say; what is done and how many there are is said in full."""
    progress = Progress()
    progress.expect(50_000, is_exact=False)
    progress.rows_done, progress.files_total, progress.files_done = 16_000, 300, 12
    progress.errors["rejected"] = 12
    progress.retries = 1234
    with progress.request(4):
        clock.now = 100
        line = shown(progress, columns)
        assert len(line) <= columns
        assert len(line.split("|")[1]) >= BAR_WIDTH
        assert "16,000 of about 50,000 rows" in line
        if columns >= 80:
            assert "file 12 of 300" in line
        if columns == 200:
            assert line.endswith("ETA 3:32, 12 failed, 160/s, oldest 100 s, 1 in flight, 1234 retries")


def test_a_wait_for_a_server_is_shown_with_its_end(clock: Clock) -> None:
    """In the bar and in the lines: for how long, of how long."""
    progress = Progress()
    progress.expect(61_659, is_exact=False)
    progress.rows_done = 27_392
    progress.begin_waiting(600)
    clock.now = 12
    progress.begin_waiting(600)  # another server is gone, too
    said = "no answer for 12 of 600 s"
    assert f"{said}, 27,392 of about 61,659 rows" in shown(progress, 80)
    assert said in progress._line()
    progress.end_waiting()
    assert "no answer" not in shown(progress, 80) + progress._line()


def test_what_happens_again_and_again_is_said_once_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """The first time at once, then the last with the number; at the end what is left."""
    progress = Progress("quiet")
    for second in range(100):
        clock.now = second
        progress.notice(f"gone at {second}", "gone")
        progress.show()
    progress.notice("other")
    progress.end()
    assert capsys.readouterr().err.splitlines() == [
        "gone at 0",
        "gone at 60 (60 times)",
        "other",
        "gone at 99 (39 times)",
    ]


def test_the_bar_moves_while_nothing_is_answered(tmp_path: Path, fake: FakeServer) -> None:
    """On a terminal of 80 columns the line is drawn again and again, and stays one line, also with ^C behind it."""
    write(tmp_path / "in.csv", [f"text {n}" for n in range(100)])
    fake.hold_after = 24
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "pipeline", *run_arguments(fake)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=child, stdin=subprocess.DEVNULL) as process:
        os.close(child)
        wait_until_answered(fake, 24)
        frames: list[str] = []
        until = time.monotonic() + 20
        while len([frame for frame in frames if "20 of 100 rows" in frame]) < 6:
            assert time.monotonic() < until, frames
            frames += os.read(parent, 1 << 16).decode(errors="replace").split("\r")
        fake.hold_after = None
        rest = b""
        try:
            while piece := os.read(parent, 1 << 16):
                rest += piece
        except OSError:  # the other end is closed
            pass
        assert process.wait(20) == 0
    os.close(parent)
    assert all(len(frame.rstrip("\n")) <= 77 for frame in frames if "rows" in frame)
    assert [row["predicted_label"] for row in rows_of(tmp_path / "out.csv")] == [
        label_of(f"text {n}") for n in range(100)
    ]
