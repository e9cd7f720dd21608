"""Answers kept for later runs: the file of `run.reuse` (store), and how an answer stands in it (records)."""

from pipeline.reuse.database import inspect, path_of
from pipeline.reuse.records import Found
from pipeline.reuse.store import Reuse, context_of

__all__ = ["Found", "Reuse", "context_of", "inspect", "path_of"]
