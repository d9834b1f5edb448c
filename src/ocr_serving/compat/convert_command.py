"""The command line of convert."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ocr_serving.compat.convert import inference_model_to_serving
from ocr_serving.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a model; returns the exit status, 2 where the message on stderr says what was wrong."""
    options = vars(_parser().parse_args(argv))
    try:
        feeds, fetches = inference_model_to_serving(**options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or 'The folder'} cannot be read or written: {error.strerror}.", file=sys.stderr)
        return 2
    if not options["show_proto"]:
        print(f"{options['serving_server']} and {options['serving_client']} are written.")
        print(f"Inputs: {', '.join(feeds)}. Outputs: {', '.join(fetches)}.")
    return 0


def _flag(value: str) -> bool:
    """A flag's word, as in --show_proto True."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value.lower() not in words:
        raise argparse.ArgumentTypeError("takes True or False")
    return words[value.lower()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m paddle_serving_client.convert",
        description="Make serving folders of an inference model: ONNX, or Paddle's .pdmodel or PIR .json.",
    )
    parser.add_argument("--dirname", required=True, metavar="DIR", help="folder of the model")
    parser.add_argument("--model_filename", metavar="FILE", help="the model in it (default: the one that is there)")
    parser.add_argument("--params_filename", metavar="FILE", help="its parameters (default: those that are there)")
    parser.add_argument("--serving_server", default="serving_server", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--serving_client", default="serving_client", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--feed_alias_names", metavar="A,B", help="aliases of the inputs (default: their names)")
    parser.add_argument("--fetch_alias_names", metavar="A,B", help="aliases of the outputs, which are sorted by name")
    parser.add_argument(
        "--show_proto", type=_flag, default=False, metavar="True", help="print the configuration and write nothing"
    )
    return parser
