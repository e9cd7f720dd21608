"""Where files are: on a disk, in an object store, or at the end of a pipe; and where a run keeps what is its own."""

from pipeline.places.listing import is_hidden, is_named, is_pattern, list_files, match_files
from pipeline.places.location import Kind, Location, local, locate
from pipeline.places.pieces import parts_of, pieces_of
from pipeline.places.spool import spool
from pipeline.places.state import private_directory, state_of, state_root
from pipeline.places.stream import StoreStream

__all__ = [
    "Kind",
    "Location",
    "StoreStream",
    "is_hidden",
    "is_named",
    "is_pattern",
    "list_files",
    "local",
    "locate",
    "match_files",
    "parts_of",
    "pieces_of",
    "private_directory",
    "spool",
    "state_of",
    "state_root",
]
