"""An object of a store as a stream: read in pieces that grow, so that a look costs little and a file few requests."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipeline.errors import ClassifyError

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_BYTES = 256 << 10  # a header and the first rows are mostly in it
MOST_BYTES = 8 << 20  # a request takes 30 to 100 ms before its first byte comes


class StoreStream:
    """Reads a file of a store from one place on. `trouble` says what an error of pyarrow means."""

    def __init__(self, file: pa.NativeFile, trouble: Callable[[Exception], ClassifyError | None]) -> None:
        self._file, self._trouble = file, trouble
        self._held = memoryview(b"")
        self._at = 0  # the end of what is held
        self._next = FIRST_BYTES
        self.closed = False

    def seek(self, offset: int) -> None:
        """Go to a place in the file."""
        self._at, self._held = offset, memoryview(b"")

    def read(self, size: int) -> bytes:
        """The next bytes, `size` of them or fewer; none at the end.

        Raises:
            StoreRefused, StoreGone: see `Store`.
        """
        import pyarrow as pa

        if not self._held:
            try:
                self._held = memoryview(self._file.read_at(max(size, self._next), self._at))
            except (OSError, pa.ArrowException) as error:
                raise self._trouble(error) or error from None
            self._at += len(self._held)
            self._next = min(2 * self._next, MOST_BYTES)
        taken, self._held = self._held[:size], self._held[size:]
        return bytes(taken)

    def close(self) -> None:
        """Let go of the file."""
        self.closed = True
        self._held = memoryview(b"")
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
