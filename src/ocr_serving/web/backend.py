"""A model that a web service stands on, as far as its operators ask: what runs it, and whether it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ocr_serving.deadline import Deadline
from ocr_serving.server.supervisor import ModelServerProcess


@dataclass(frozen=True)
class Backend:
    """One model.

    Attributes:
        role: "det" or "rec".
        model: the folder's name, "" where it is another server's business.
        engine: what runs it, "remote" where that is another server's business, too.
        precision: the engine's arithmetic, "" where it is not known.
        check: runs the model on something tiny; raises what is wrong.
        process: the model server started for it, if one was.
    """

    role: str
    model: str
    engine: str
    precision: str
    check: Callable[[Deadline], object]
    process: ModelServerProcess | None = None
