"""What the front doors of the web services run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ocr_serving import command_line, endpoint, logs, settings
from ocr_serving.command_line import Parser
from ocr_serving.errors import ConfigError, OcrServingError
from ocr_serving.settings import Settings
from ocr_serving.web import serving
from ocr_serving.web.app import PATH, create_app
from ocr_serving.web.wiring import Kind, running_service

SAMPLES = {"ocr": "imgs/sign.jpg", "det": "imgs/sign.jpg", "rec": "rec_img/line_1.png"}
"""A file for the curl line that a service prints."""


def main(kind: Kind, *, in_process: bool = False, argv: Sequence[str] | None = None) -> int:
    """Run a web service until SIGINT or SIGTERM.

    Args:
        kind: "ocr", "det" or "rec".
        in_process: run the models in this process.
        argv: arguments instead of the command line's.

    Returns:
        The exit status: 0 once stopped; if it could not start, 2 where that would be so again, else 1.
    """
    command_line.set_up()
    parser = _parser(kind, in_process)
    args = parser.parse_args(argv)
    try:
        _serve(kind, in_process, settings.from_args(args, **({"device": args.where} if args.where else {})))
    except OcrServingError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        pass  # while starting
    return 0


def _serve(kind: Kind, in_process: bool, chosen: Settings) -> None:
    logs.configure(chosen.log_format)
    with endpoint.bind(chosen.host, chosen.port) as bound, running_service(kind, in_process, chosen) as running:
        app = create_app(running.service, chosen, running.metrics, running.backends)
        server = serving.Server(app, bound, chosen)
        command_line.announce(_ready(kind, chosen))
        server.run_until_told()


def local_url(chosen: Settings) -> str:
    """Where programs on this machine reach a service with these settings."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(chosen.host, chosen.host)  # noqa: S104
    return f"http://{endpoint.join(host, chosen.port)}{PATH}"


def _ready(kind: Kind, chosen: Settings) -> str:
    """The lines that say where the service is and how to try it."""
    url = local_url(chosen)
    body = f"""'{{"feed":[{{"x":"'$(base64 <{SAMPLES[kind]} | tr -d '\\n')'"}}],"fetch":["res"]}}'"""
    key = " -H 'Authorization: Bearer YOUR_KEY'" if chosen.api_keys else ""
    curl = f"curl -s -H 'Content-Type: application/json'{key} -d @- {url}"
    return f"The {kind} service is ready: POST {url}\nTry it:  echo {body} | {curl}\n"


def _parser(kind: Kind, in_process: bool) -> Parser:
    where = "with its models in this process" if in_process else "over RPC"
    parser = Parser(description=f"The {kind} web service, {where}. Every flag is a setting.")
    parser.add_argument("where", nargs="?", choices=("cpu", "gpu"), metavar="cpu|gpu", help="device of the models")
    settings.add_flags(parser)
    return parser
