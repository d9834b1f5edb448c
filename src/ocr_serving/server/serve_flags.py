"""The command line of `python3 -m paddle_serving_server.serve`: every flag that the original takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ocr_serving.command_line import Parser
from ocr_serving.server.workflow import BATCH_ROWS, OPS
from ocr_serving.wire.frame import MAX_BODY

START = "start"
_SWITCH: dict[str, Any] = {"action": "store_true"}
_VALUE: dict[str, Any] = {"metavar": "VALUE"}
_WITHOUT_EFFECT: dict[str, dict[str, Any]] = {
    "--device": _VALUE,
    "--workdir": _VALUE,
    "--use_mkl": _SWITCH,
    "--use_calib": _SWITCH,
    "--mem_optim_off": _SWITCH,
    "--ir_optim": _SWITCH,
    "--use_encryption_model": _SWITCH,
    "--encryption_rpc_port": _VALUE,
    "--use_trt": _SWITCH,
    "--use_lite": _SWITCH,
    "--use_xpu": _SWITCH,
    "--use_ascend_cl": _SWITCH,
    "--product_name": _VALUE,
    "--container_id": _VALUE,
    "--gpu_multi_stream": _SWITCH,
    "--request_cache_size": _VALUE,
    "--use_dist_model": _SWITCH,
    "--dist_carrier_id": _VALUE,
    "--dist_cfg_file": _VALUE,
    "--dist_endpoints": _VALUE,
    "--dist_nranks": _VALUE,
    "--dist_subgraph_index": _VALUE,
    "--dist_worker_serving_endpoints": _VALUE,
    "--dist_master_serving": _SWITCH,
    "--min_subgraph_size": {"nargs": "+", **_VALUE},
    "--gpu_memory_mb": _VALUE,
    "--cpu_math_thread_num": _VALUE,
    "--trt_workspace_size": _VALUE,
    "--trt_use_static": _SWITCH,
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's flags; `without_effect` names those given that have none. Exits where it makes no sense."""
    args = _parser().parse_args(argv)
    args.without_effect = [flag for flag in _WITHOUT_EFFECT if hasattr(args, flag.removeprefix("--"))]
    return args


def _parser() -> Parser:
    parser = Parser(
        prog="python3 -m paddle_serving_server.serve",
        description="Serve a model folder, several in sequence, or det and rec chained, over bRPC, HTTP and gRPC. "
        "Engine, precision and more are settings, as in OCR_ENGINE=paddle.",
        epilog=f"Accepted without effect: {' '.join(_WITHOUT_EFFECT)}",
    )
    parser.add_argument("command", nargs="?", default=START, choices=(START, "stop", "kill", "check"))
    parser.add_argument("--model", nargs="+", metavar="DIR", help="model folder, for example ocr_det_model")
    parser.add_argument("--port", type=int, default=9393, help="default: %(default)s")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1; 0.0.0.0 opens it to the network)")
    parser.add_argument("--thread", type=int, metavar="N", help="requests at once (default: one a core, at least 4)")
    parser.add_argument("--gpu_ids", nargs="+", metavar="ID", help="GPU to run on, one for each model (default: CPU)")
    parser.add_argument("--op", nargs="+", metavar="OP", help=f"ops in order, if not {OPS[2]}: {' '.join(OPS)}")
    parser.add_argument("--precision", help="arithmetic: fp32, fp16 or bf16 (default: the fastest that reads as well)")
    _add_count(parser, "--runtime_thread_num", "runs at once, each of all requests that wait (default: 0, one by one)")
    _add_count(parser, "--batch_infer_size", f"most rows of such a run (default: {BATCH_ROWS})")
    parser.add_argument("--max_body_size", type=int, metavar="BYTES", help=f"largest request (default: {MAX_BODY})")
    parser.add_argument("--enable_prometheus", action="store_true", help="metrics on a port of their own, too")
    parser.add_argument("--prometheus_port", type=int, default=19393, metavar="PORT", help="default: %(default)s")
    for flag, kind in _WITHOUT_EFFECT.items():
        parser.add_argument(flag, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **kind)
    return parser


def _add_count(parser: Parser, flag: str, meaning: str) -> None:
    parser.add_argument(flag, nargs="+", type=int, metavar="N", help=f"{meaning}; one for each model")
