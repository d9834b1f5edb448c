"""Real HTTP and gRPC servers that keep the requests and give canned answers, and HttpClients to ask them."""

import contextlib
import gzip
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import parse_headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
from rpc_peers import CAPTURES

from ocr_serving import model_writer
from ocr_serving.model_dir import Variable
from ocr_serving.wire import general_model_pb2 as pb
from paddle_serving_client.httpclient import HttpClient

IMAGE = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
IMAGES = [Variable("x", "image", 1, (3, 2, 4))]
OUT = [Variable("s0", "out", 1, (3,))]
METHOD = "/baidu.paddle_serving.predictor.general_model.GeneralModelService/inference"


@contextlib.contextmanager
def http_clients(folder: Path) -> Iterator[Callable[..., HttpClient]]:
    """Makes clients whose configuration, with these feeds, is written into the folder; closes them at the end."""
    made = []

    def make(feeds=IMAGES, **options):
        model_writer.write_conf(folder / "serving_client_conf.prototxt", feeds, OUT)
        client = HttpClient(**options)
        client.load_client_config([str(folder)])
        made.append(client)
        return client

    yield make
    for each in made:
        each.close()


class Server:
    """A real HTTP server that keeps the requests and gives every one the same answer."""

    def __init__(self, body=b"", content_type="application/proto", status=200, headers=()):
        requests = self.requests = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                requests.append((self.path, self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                for name, value in [("Content-Type", content_type), ("Content-Length", len(body)), *headers]:
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def response():
    made = pb.Response()
    made.outputs.add(engine_name="e").tensor.add(alias_name="out", elem_type=1, shape=[1, 2], float_data=[1, 2.5])
    return made


def capture(number):
    """A genuine request: its path, headers and body."""
    stream = io.BytesIO((CAPTURES / "httpclient" / f"req_{number}.bin").read_bytes())
    path = stream.readline().split()[1].decode()
    headers = parse_headers(stream)
    body = stream.read()
    return path, headers, gzip.decompress(body) if headers["Content-Encoding"] == "gzip" else body


@contextlib.contextmanager
def grpc_server(answer):
    """The address of a gRPC server that answers answer(context), and its requests."""
    requests = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            if details.method != METHOD:
                return None

            def respond(request, context):
                requests.append(request)
                return answer(context)

            return grpc.unary_unary_rpc_method_handler(respond)

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", requests
    finally:
        server.stop(None).wait()
