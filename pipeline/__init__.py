"""Label a file with your own model, through vLLM's /classify.

from pipeline import Config, run, classify_texts, classify_frame
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.answers import Prediction
    from pipeline.config import Config
    from pipeline.errors import ClassifyError
    from pipeline.library import (
        classify_frame,
        classify_frame_async,
        classify_texts,
        classify_texts_async,
        run,
        run_async,
    )
    from pipeline.monitoring.record import RunRecord


# Where each name lives: `classify --help` imports this package, and must not pay for what it does not use.
_HOMES = {
    "ClassifyError": "errors",
    "Config": "config",
    "Prediction": "answers",
    "RunRecord": "monitoring.record",
    "classify_frame": "library",
    "classify_frame_async": "library",
    "classify_texts": "library",
    "classify_texts_async": "library",
    "run": "library",
    "run_async": "library",
}
__all__ = [
    "ClassifyError",
    "Config",
    "Prediction",
    "RunRecord",
    "classify_frame",
    "classify_frame_async",
    "classify_texts",
    "classify_texts_async",
    "run",
    "run_async",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
