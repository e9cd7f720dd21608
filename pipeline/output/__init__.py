"""The output: where it goes, what stands there, whether it is ours, and what the same command does again."""

from pipeline.output.choosing import default_output, locate_output, lock_of_directory, named_for, place_at, place_output
from pipeline.output.place import Next, OutputPlace, make_directory, shape_of

__all__ = [
    "Next",
    "OutputPlace",
    "default_output",
    "locate_output",
    "lock_of_directory",
    "make_directory",
    "named_for",
    "place_at",
    "place_output",
    "shape_of",
]
