"""`python3 -m paddle_serving_server.serve`: a model folder served on a port."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ocr_serving import endpoint, settings
from ocr_serving.errors import ConfigError
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.server import process

DEFAULT_PORT = 9393
"""The original's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM.

    Args:
        argv: arguments instead of the command line's.

    Returns:
        The exit status: 0 once stopped, 2 where the message on stderr says why it could not start.
    """
    args = _parser().parse_args(argv)
    process.set_up()
    try:
        if args.model is None:
            raise ConfigError("You must specify your serving model, for example: --model ocr_det_model.")
        threads = process.default_threads() if args.thread is None else args.thread
        if threads < 1:
            raise ConfigError(f"--thread takes a number of 1 or more, not {threads}.")
        chosen = settings.load({"host": args.host, "port": args.port, **_device(args.gpu_ids)})
        with endpoint.bind(chosen.host, chosen.port) as listener:
            process.run(args.model, listener, chosen, threads, _announce)
    except ConfigError as error:
        print(error.message, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass  # while starting
    return 0


def _announce(predictor: LocalPredictor, address: str) -> None:
    name, engine = predictor.model.name, predictor.engine
    print(f"Serving {name} on {address} (engine {engine.name}, precision {engine.precision}).", flush=True)


def _device(gpu_ids: str | None) -> dict[str, str | None]:
    """The device settings that --gpu_ids asks for; "" and "-1" are the original's words for the CPU.

    Raises:
        ConfigError: it is no GPU's number.
    """
    if gpu_ids is None:
        return {}
    if gpu_ids in ("", "-1"):
        return {"device": "cpu"}
    if not (gpu_ids.isascii() and gpu_ids.isdigit()):
        raise ConfigError(f"--gpu_ids takes the number of one GPU, or -1 for the CPU, not {gpu_ids!r}.")
    return {"device": "gpu", "gpu_id": gpu_ids}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m paddle_serving_server.serve",
        description="Serve a model folder over bRPC. Engine, precision and more are settings, as in OCR_ENGINE=paddle.",
    )
    parser.add_argument("--model", metavar="DIR", help="model folder, for example ocr_det_model")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: %(default)s")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1; 0.0.0.0 opens it to the network)")
    parser.add_argument("--thread", type=int, metavar="N", help="requests worked on at once (default: 4 or one a core)")
    parser.add_argument("--gpu_ids", metavar="ID", help="GPU to run on (default: the CPU)")
    return parser
