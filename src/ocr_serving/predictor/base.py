"""What every predictor promises, wherever its engine runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from ocr_serving.deadline import Deadline

Array = NDArray[Any]
Arrays = dict[str, Array]


class Predictor(Protocol):
    """One served model. Thread-safe: any number of calls may run at once."""

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """Run the model once.

        Args:
            feed: alias of an input -> array with its batch dimension; never changed. An image input takes float32 NCHW,
                normalised by the caller, or uint8 NHWC BGR, which the engine normalises with the model's mean and std.
            fetch: aliases of the outputs wanted; empty means every output of the model's own graph.
            deadline: when to give up; None means never.

        Returns:
            alias -> array, C-contiguous, with the keys and the order of `fetch`.

        Raises:
            BadInput: an unknown name, or a shape or type the model does not take.
            DeadlineExceeded, Overloaded, EngineFailed, UpstreamUnavailable, BadUpstream.
        """
        ...

    def predict_each(
        self, feeds: Sequence[Mapping[str, Array]], fetch: Sequence[str] = (), deadline: Deadline | None = None
    ) -> list[Arrays]:
        """Run the model on one feed after the other; a model server is called once for many.

        Args:
            feeds: at least one; see predict().
            fetch: see predict().
            deadline: when to give up.

        Returns:
            What predict() returns for each feed, in their order.

        Raises:
            What predict() raises, for any of the feeds.
        """
        return [self.predict(feed, fetch, deadline) for feed in feeds]

    def close(self) -> None:
        """Free what the predictor holds; no call may follow."""
        ...
