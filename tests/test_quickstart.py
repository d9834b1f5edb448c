"""`make serve` after its installation: quickstart.py as users run it, but for the ports, which may be taken here."""

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest
import zoo_models
from rpc_peers import wait_until
from server_process import ROOT, ServerProcess, free_port

KEY = "a-key-of-the-test"


def listening(port):
    """The addresses on which somebody listens at a port."""
    found = psutil.net_connections("inet")
    return {socket_.laddr.ip for socket_ in found if socket_.status == "LISTEN" and socket_.laddr.port == port}


@pytest.fixture
def port(monkeypatch):
    """The web service's."""
    monkeypatch.setenv("OCR_API_KEYS", KEY)
    monkeypatch.setenv("OCR_PORT", str(free_port()))
    return int(os.environ["OCR_PORT"])


@pytest.fixture
def folder(tmp_path, port, monkeypatch):
    """A checkout without models, its det server on a free port."""
    det = str(free_port())
    monkeypatch.setenv("OCR_DET_ENDPOINT", f"127.0.0.1:{det}")
    script = (ROOT / "quickstart.py").read_text(encoding="utf-8")
    (tmp_path / "quickstart.py").write_text(script.replace("9293", det), encoding="utf-8")
    for name in ("imgs", "ocr_web_server.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGHUP])
def test_it_fetches_starts_shows_a_sample_serves_and_ends_with_its_servers(folder, port, ending, monkeypatch):
    monkeypatch.setenv("OCR_HOST", "0.0.0.0")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    server = ServerProcess(["quickstart.py"], port, folder)
    try:
        server.wait_for_output("Ctrl-C stops it.")
        assert "Community Library: New Opening Hours" in server.output
        assert f"ocr_web_client.py --url {server.url} --key YOUR_KEY --text imgs/" in server.output
        command = [sys.executable, ROOT / "ocr_web_client.py", "--url", server.url, "--key", KEY, "imgs/sign.jpg"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        assert "EAST LAKE PARK" in done.stdout, done.stderr
        det = int(os.environ["OCR_DET_ENDPOINT"].rpartition(":")[2])
        assert listening(port) == {"0.0.0.0"}
        assert listening(det) == {"127.0.0.1"}, "it has no keys"
    finally:
        status = server.stop(ending)
    assert status == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)


REFUSING = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_error(403)
http.server.HTTPServer(("127.0.0.1", int(os.environ["OCR_PORT"])), Handler).serve_forever()
"""


@pytest.mark.parametrize(
    ("door", "sentence"),
    [("raise SystemExit(2)", "a server did not start."), (REFUSING, "the service answered 403: ")],
    ids=["ends", "refuses"],
)
def test_what_does_not_start_or_refuses_is_said_at_once(folder, port, door, sentence):
    (folder / "ocr_web_server.py").unlink()
    (folder / "ocr_web_server.py").write_text(door)
    for name in ("ocr_det", "ocr_rec"):
        (folder / f"{name}_model").symlink_to(zoo_models.folder(name))
    server = ServerProcess(["quickstart.py"], port, folder)
    wait_until(lambda: server.process.poll() is not None)
    assert server.process.returncode == 1
    assert f"make serve stopped: {sentence}" in server.output


def test_a_port_that_is_taken_is_said_before_anything_starts(folder, port):
    with socket.create_server(("127.0.0.1", port)):
        server = ServerProcess(["quickstart.py"], port, folder)
        wait_until(lambda: server.process.poll() is not None)
    assert server.process.returncode == 1
    assert server.output.startswith(f"make serve stopped: 127.0.0.1:{port} is taken")
