"""The answers of an output (store), the run that they belong to (identity), and the process that holds it (lock)."""

from pipeline.checkpoint.identity import Identity, differences, digest_file, identity_of
from pipeline.checkpoint.lock import Lock, is_held, read_holder
from pipeline.checkpoint.store import Checkpoint, Range

__all__ = [
    "Checkpoint",
    "Identity",
    "Lock",
    "Range",
    "differences",
    "digest_file",
    "identity_of",
    "is_held",
    "read_holder",
]
