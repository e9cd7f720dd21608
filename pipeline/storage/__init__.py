"""Where files are: on a disk, in an object store, or at the end of a pipe; and the state directory of runs."""

from pipeline.storage.draft import Draft, Pipe, disk_errors
from pipeline.storage.listing import list_files
from pipeline.storage.location import Kind, Location, local, locate
from pipeline.storage.store import StoreStream

__all__ = ["Draft", "Kind", "Location", "Pipe", "StoreStream", "disk_errors", "list_files", "local", "locate"]
