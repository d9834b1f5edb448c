"""What speaks HTTP to a model server in the tests, well or badly."""

import contextlib
import json

import requests
from rpc_peers import connect, numbers, remote

from ocr_serving.wire import messages
from ocr_serving.wire.tensor import Tensor

SHORT = "/GeneralModelService/inference"


def post(server, body, content_type="application/json", path=SHORT, **headers):
    headers = {"Content-Type": content_type, "Accept-Encoding": "identity", **headers}
    return requests.post(f"http://{server.address}{path}", data=body, headers=headers, timeout=30)


def get(server, path):
    return requests.get(f"http://{server.address}{path}", timeout=30)


def json_body(*values, **more):
    tensor = {"float_data": values, "elem_type": 1, "shape": [1, len(values)], "name": "x"}
    return json.dumps({"tensor": [tensor], **more})


def proto_body(array, fetch=()):
    return b"".join(messages.encode_request([Tensor("x", "image", array)], fetch))


def json_tensor(answer):
    [output] = answer.json()["outputs"]
    [tensor] = output["tensor"]
    return tensor


def proto_array(body):
    [output] = messages.decode_response(memoryview(body)).outputs
    return output.tensors[0].unpack()


def assert_alive(server):
    with remote(server.address) as client:
        assert client.predict({"image": numbers(1, 2)})["out"].tolist() == [[2, 4]]
    assert json_tensor(post(server, json_body(3)))["float_data"] == [6]


def converse(server, data):
    """Everything the server sends until it closes the connection."""
    with connect(server.address) as client:
        client.sendall(data)
        return received(client)


def received(client):
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            answer += data
    return answer


def raw_request(body, *lines, close=True):
    head = [f"POST {SHORT} HTTP/1.1", "Host: x", *lines, *(["Connection: close"] if close else [])]
    return "\r\n".join([*head, "", ""]).encode() + body
