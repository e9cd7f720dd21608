"""What is answered (SQLite), whose it is (fingerprint), who holds it (lock)."""

from pipeline.checkpoint.identity import Identity, differences, digest_file, identity_of, was_piped
from pipeline.checkpoint.lock import Lock, is_held, read_holder
from pipeline.checkpoint.memory import MemoryCheckpoint
from pipeline.checkpoint.store import Checkpoint, Range

__all__ = [
    "Checkpoint",
    "Identity",
    "Lock",
    "MemoryCheckpoint",
    "Range",
    "differences",
    "digest_file",
    "identity_of",
    "is_held",
    "read_holder",
    "was_piped",
]
