"""The names of torchvision that SGLang and transformers import, and nothing behind them; installed as torchvision."""

import enum
import sys

__version__ = "0.27.0"


class InterpolationMode(enum.Enum):
    """Ways to resize an image."""

    NEAREST, NEAREST_EXACT, BILINEAR, BICUBIC, BOX, HAMMING, LANCZOS = range(7)


ImageReadMode = decode_image = pil_to_tensor = to_tensor = None
io = transforms = functional = v2 = sys.modules[__name__]
for name in ("io", "transforms", "transforms.functional", "transforms.v2", "transforms.v2.functional"):
    sys.modules[f"{__name__}.{name}"] = sys.modules[__name__]
