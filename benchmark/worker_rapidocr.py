"""RapidOCR as a peer, in an environment of its own: worker_rapidocr.py openvino|onnxruntime [LONGEST_SIDE_FOR_DET]."""

from __future__ import annotations

import sys

from harness.lines import Read, serve


def load(engine: str, longest_side: str = "") -> Read:
    """Its defaults, PP-OCRv6 small, without the classifier of turned lines, which our pipeline has none of either.

    By default it enlarges images for det until their shorter side has 736 pixels; with a longest side, it shrinks them
    to that instead, as ours does.
    """
    import cv2
    import numpy as np
    from rapidocr import EngineType, RapidOCR

    chosen = EngineType(engine)
    size = {"Det.limit_side_len": int(longest_side), "Det.limit_type": "max"} if longest_side else {}
    ocr = RapidOCR(
        params={
            "Det.engine_type": chosen,
            "Rec.engine_type": chosen,
            "Global.use_cls": False,
            "Global.log_level": "error",
            **size,
        }
    )

    def read(data: bytes) -> list[str]:
        return list(ocr(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)).txts or [])

    return read


if __name__ == "__main__":
    serve(lambda: load(*sys.argv[1:]))
