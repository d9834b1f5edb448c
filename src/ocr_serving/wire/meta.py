"""The RpcMeta of requests and answers, field by field what Paddle Serving 0.9's client and server send."""

from __future__ import annotations

from ocr_serving.errors import EngineFailed, OcrServingError
from ocr_serving.wire import compression
from ocr_serving.wire.rpc_meta_pb2 import RpcMeta, RpcRequestMeta, RpcResponseMeta

SERVICE = "baidu.paddle_serving.predictor.general_model.GeneralModelService"
SHORT_SERVICE = "GeneralModelService"
"""brpc finds a service by its name without the package, too."""
INFERENCE = "inference"
METHODS = (INFERENCE, "debug")
"""The original's debug does the same."""


def for_request(correlation_id: int, timeout_ms: int | None = None, request_id: str = "") -> RpcMeta:
    """The meta of an inference call.

    Args:
        correlation_id: the answer will carry it; 64 bits.
        timeout_ms: after how many milliseconds nobody waits for the answer any more (newer brpc's own field).
        request_id: for the server's log (brpc's own field, too); "" sends none.
    """
    request = RpcRequestMeta(
        service_name=SERVICE, method_name=INFERENCE, log_id=0, timeout_ms=timeout_ms, request_id=request_id or None
    )
    return RpcMeta(request=request, compress_type=compression.NONE, correlation_id=correlation_id)


def for_success(correlation_id: int) -> RpcMeta:
    """The meta before a Response."""
    response = RpcResponseMeta(error_code=0)
    return RpcMeta(response=response, compress_type=compression.NONE, correlation_id=correlation_id)


def for_error(correlation_id: int, error: OcrServingError, server: str) -> RpcMeta:
    """The meta of an answer that is an error; no payload follows it.

    Args:
        correlation_id: the request's.
        error: gives code and sentence.
        server: see error_text().
    """
    code = error.brpc_code
    response = RpcResponseMeta(error_code=code, error_text=error_text(error, server))
    # The original's service asks for gzip before it does anything, so its own errors (negative codes) say so too.
    compress_type = compression.GZIP if code < 0 else compression.NONE
    return RpcMeta(response=response, compress_type=compress_type, correlation_id=correlation_id)


def error_text(error: OcrServingError, server: str) -> str:
    """What brpc says for an error in every protocol.

    Args:
        error: gives code and sentence; of an EngineFailed, the sentence is the original's for every failed inference.
        server: "ip:port", with which brpc begins every error text.
    """
    sentence = "InferService inference failed!" if isinstance(error, EngineFailed) else str(error)
    return f"[{server}][E{error.brpc_code}]{sentence}"
