"""Requests to the web services, and what comes back."""

import base64

from server_process import ROOT


def feed(*names):
    return [{"x": base64.b64encode((ROOT / name).read_bytes()).decode()} for name in names]


def result(server, body):
    answer = server.post(body)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def without_spaces(texts):
    return ["".join(text.split()) for text in texts]


def assert_error(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code
    return answer.json()["error"]["message"]
