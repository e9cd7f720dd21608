"""The output is a function of the input and of the answers alone, however they came about."""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from joining import predictions_of

from pipeline.checkpoint import Checkpoint
from pipeline.config import Config, Loader, Writer
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.loader import open_source
from pipeline.storage import Draft
from pipeline.texts import Position
from pipeline.writer import join

ROWS = 60
INPUT = "id,text\n" + "".join(f'{n},"a, {n}"\n' for n in range(ROWS))
START = Position(0, 0, 0)
cuts = st.sets(st.integers(1, ROWS - 1)).map(sorted)


def bounds(inner: list[int], start: int = 0, stop: int = ROWS) -> list[tuple[int, int]]:
    """Return the parts that cuts leave of a range."""
    edges = [start, *(cut for cut in inner if start < cut < stop), stop]
    return list(itertools.pairwise(edges))


def output_of(first: list[tuple[int, int]], second_cuts: list[int], seed: int, failed: list[int]) -> bytes:
    """Answer some pieces, crash, answer the open ranges cut in another way, join."""
    whole = predictions_of(ROWS, failed)
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.csv", Path(folder) / "out.csv"
        source.write_text(INPUT)
        config = Config(loader=Loader(input=str(source)), writer=Writer(output=str(output)))
        before = Checkpoint(Path(folder) / "checkpoint")
        for start, stop in random.Random(seed).sample(first, len(first)):
            before.add(start, START, whole[start:stop], 0)
        before.flush()
        before.close()
        after = Checkpoint(Path(folder) / "checkpoint")
        for gap in after.open_ranges(ROWS):
            assert gap.stop is not None
            for start, stop in reversed(bounds(second_cuts, gap.start, gap.stop)):
                after.add(start, START, whole[start:stop], 0)
        after.flush()
        opened = open_source(config.loader)
        with Draft(output) as draft:
            join(config, opened, after, AppendedColumns(config, 2), draft, rows=ROWS, on_rows=lambda _: None)
            draft.publish()
        after.close()
        return output.read_bytes()


@given(cuts, cuts, st.data())
def test_any_split_any_order_any_crash_give_the_same_output(
    first_cuts: list[int], second_cuts: list[int], data: st.DataObject
) -> None:
    """Chunks cut anywhere, arriving in any order, any of them lost: the output's bytes are the same."""
    failed = sorted(data.draw(st.sets(st.integers(0, ROWS - 1), max_size=5)))
    pieces = bounds(first_cuts)
    kept = data.draw(st.lists(st.sampled_from(pieces), unique=True))
    seed = data.draw(st.integers(0, 99))
    assert output_of(kept, second_cuts, seed, failed) == output_of([(0, ROWS)], [], 0, failed)


@given(st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=20), cuts)
def test_reopening_failed_rows_opens_exactly_those(failed: set[int], inner: list[int]) -> None:
    """After `reopen_failed` the open ranges are the failed rows, and everything else is as it was."""
    whole = predictions_of(ROWS, sorted(failed))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder) / "checkpoint")
        for start, stop in bounds(inner):
            checkpoint.add(start, START, whole[start:stop], 2)
        checkpoint.flush()
        assert checkpoint.reopen_failed() == len(failed)
        opened = [row for start, stop in checkpoint.open_ranges(ROWS) for row in range(start, stop or ROWS)]
        assert opened == sorted(failed)
        kept = [prediction for record in checkpoint.answers(2) for prediction in record]
        assert kept == [prediction for row, prediction in enumerate(whole) if row not in failed]
        checkpoint.close()
