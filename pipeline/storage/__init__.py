"""Where files are: on a disk, in an object store, or at the end of a pipe; and the state directory of runs."""

from pipeline.storage.draft import Draft, Pipe, disk_errors, sync_file, write_whole
from pipeline.storage.listing import is_hidden, is_named, is_pattern, list_files, match_files
from pipeline.storage.location import Kind, Location, local, locate, samples_of
from pipeline.storage.state import private_directory, spool, state_of, state_root
from pipeline.storage.store import StoreStream

__all__ = [
    "Draft",
    "Kind",
    "Location",
    "Pipe",
    "StoreStream",
    "disk_errors",
    "is_hidden",
    "is_named",
    "is_pattern",
    "list_files",
    "local",
    "locate",
    "match_files",
    "private_directory",
    "samples_of",
    "spool",
    "state_of",
    "state_root",
    "sync_file",
    "write_whole",
]
