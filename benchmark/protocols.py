"""What each protocol of the model server costs: bytes on the wire and time, for one det request on one server.

    .venv/bin/python benchmark/protocols.py

The request is an image as the original's clients send it to det, float32 (1, 3, h, w), and its answer the probability
map, float32 (1, 1, h, w); every protocol must bring the same map, bit for bit. The time is the client's: from the array
it has to the array it gets, on a kept connection. What is not inference or copying is the protocol.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
from harness import result
from harness.measure import median_time, milliseconds
from harness.protocol_clients import CLIENTS, Array
from harness.result import Result
from harness.services import Models, model_server
from harness.wire_meter import metered

from ocr_serving import model_dir
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENGINE = "engine alone, no protocol"


def page(side: int) -> Array:
    """A normalised input of noise: float32 (1, 3, side, side). No protocol but gzip cares what it shows."""
    return np.random.default_rng(0).standard_normal((1, 3, side, side), np.float32)


def measure(side: int, repeat: int) -> Result:
    """Protocol -> bytes sent and received by one call, and its median time in milliseconds."""
    folder = Models.fetch().det
    model = model_dir.load(folder)
    image = page(side)
    protocols: dict[str, dict[str, float | None]] = {}
    with model_server(folder) as address:
        expected = None
        for name, connect in CLIENTS.items():
            with metered(address) as meter, connect(meter.address, model) as call:
                found = call(image)
                sizes = {"sent": meter.sent, "received": meter.received}
            expected = found if expected is None else expected
            if not np.array_equal(found, expected):
                sys.exit(f"{name} brings another map than bRPC.")
            with connect(address, model) as call:
                protocols[name] = {**sizes, "ms": milliseconds(median_time(lambda: call(image), repeat))}
    predictor = LocalPredictor.load(model, Settings())
    alone = milliseconds(median_time(lambda: predictor.predict({model.feeds[0].alias: image}), repeat))
    protocols[ENGINE] = {"sent": None, "received": None, "ms": alone}
    return {"shape": list(image.shape), "protocols": protocols}


def markdown(data: Result) -> str:
    """The table."""
    head = ["protocol", "MB sent", "MB received", "ms"]
    rows = [
        [name, *(None if cost[key] is None else cost[key] / 1e6 for key in ("sent", "received")), cost["ms"]]
        for name, cost in data["protocols"].items()
    ]
    return result.table(head, rows)


def figures(data: Result) -> dict[str, Figure]:
    """Time of a request in each protocol, of which the engine's is the last bar."""
    from matplotlib.figure import Figure

    protocols = data["protocols"]
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(protocols)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(protocols), [cost["ms"] for cost in protocols.values()], color="lightsteelblue")
    axes.set_xlabel("ms")
    axes.invert_yaxis()
    return {"protocols": figure}


def main() -> None:
    """Measure, write the result file, print the table."""
    arguments = result.parser(__doc__ or "", "protocols", images=False)
    arguments.add_argument("--side", type=int, default=960, help="height and width of the input (default: 960)")
    arguments.add_argument("--repeat", type=int, default=9, help="timed calls of each protocol (default: 9)")
    args = arguments.parse_args()
    result.finish(args, measure(args.side, args.repeat), markdown)


if __name__ == "__main__":
    main()
