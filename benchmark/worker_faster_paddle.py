"""faster-paddle as a peer, in an environment of its own: worker_faster_paddle.py small|tiny."""

from __future__ import annotations

import sys

from harness.lines import Read, serve

DET_MAX_SIDE = 960
"""As our det_limit_side."""


def load(size: str) -> Read:
    """PP-OCRv6 of the size, as it comes in the wheel."""
    from faster_paddle import OcrEngine

    engine = OcrEngine(model_size=size, det_max_side=DET_MAX_SIDE)
    return lambda data: engine.ocr(data)["text"].splitlines()


if __name__ == "__main__":
    serve(lambda: load(sys.argv[1]))
