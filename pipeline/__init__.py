"""Label a file with your own model, through vLLM's /classify.

from pipeline import Config, run, classify_texts, classify_frame, classify_batches
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.answers import Prediction
    from pipeline.classifier import Classifier, classify_batches
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

__all__ = [
    "Classifier",
    "ClassifyError",
    "Config",
    "Prediction",
    "RunRecord",
    "classify_batches",
    "classify_frame",
    "classify_frame_async",
    "classify_texts",
    "classify_texts_async",
    "run",
    "run_async",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Here, because `classify --help` imports this package, too, and must not pay for what it does not use.
    from pipeline import classifier, library

    return getattr(classifier if name in {"Classifier", "classify_batches"} else library, name)
