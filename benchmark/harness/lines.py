"""How a peer is spoken to: JSON lines over stdin and stdout. Standard library only, as peers have
environments of their own.

-> "path of an image file"
<- {"seconds": from the file's bytes to the texts, "texts": [...]}  or  {"error": "..."}
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Read = Callable[[bytes], Sequence[str]]


def serve(load: Callable[[], Read]) -> None:
    """Load the engine, say so, and read images until stdin ends; what the engine prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    read = load()
    _write(answers, {"ready": True})
    for line in sys.stdin:
        data = Path(json.loads(line)).read_bytes()
        begin = time.perf_counter()
        try:
            texts = list(read(data))
        except Exception as error:  # a peer may fail in any way; the run goes on without this image
            _write(answers, {"error": f"{type(error).__name__}: {error}"})
            continue
        _write(answers, {"seconds": time.perf_counter() - begin, "texts": texts})


def _write(answers: object, answer: object) -> None:
    print(json.dumps(answer), file=answers, flush=True)  # type: ignore[call-overload]
