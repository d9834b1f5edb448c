"""What `make serve` runs once everything is installed: models, det server, web service, one sample, then Ctrl-C.

Each step is the command that a user would type, and prints how long it took.
"""

from __future__ import annotations

import base64
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests

from ocr_serving import endpoint, settings
from ocr_serving.errors import ConfigError
from ocr_serving.settings import Settings
from ocr_serving.web.command import local_url

SAMPLE = Path("imgs/document.jpg")
START_SECONDS = 120
STOP_SECONDS = 15
USAGE = """
OCR is served at {url} (det model server: 127.0.0.1:9293). Try it from another terminal, in this folder:

    .venv/bin/python ocr_web_client.py --url {url}{key_flag} --text imgs/
    echo '{{"feed": [{{"x": "'$(base64 <{sample} | tr -d '\\n')'"}}], "fetch": ["res"]}}' | \\
        curl -s -H 'Content-Type: application/json'{key_header} -d @- {url}

Ctrl-C stops it."""


def main() -> int:
    """Serve until Ctrl-C, SIGTERM or the terminal's end (exit status 0), or until a step or a server fails (1)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    gpu = ["--gpu_ids", "0"] if device == "gpu" else []
    servers: list[subprocess.Popen[bytes]] = []
    try:
        chosen = settings.load()
        for address in (urlsplit(local_url(chosen)).netloc, "127.0.0.1:9293"):
            check_free(address)
        for name in ("ocr_det", "ocr_rec"):
            with step(f"Model {name}"):
                get_model(name)
        with step("Det model server and web service, up to the first answer"):
            where = ["--host", "127.0.0.1", "--port", "9293"]
            det = ["-m", "paddle_serving_server.serve", "--model", "ocr_det_model", *where, *gpu]
            servers.append(start(det))
            servers.append(start(["ocr_web_server.py", device]))
            texts = first_answer(servers, chosen)
        print(f"The text in {SAMPLE}:", *texts, sep="\n    ")
        print(usage(chosen), flush=True)
        while all(server.poll() is None for server in servers):
            time.sleep(0.5)
        raise RuntimeError("a server ended")
    except KeyboardInterrupt:
        return 0
    except (ConfigError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"make serve stopped: {str(error).removesuffix('.')}.", file=sys.stderr)
        return 1
    finally:
        stop(servers)


def check_free(address: str) -> None:
    """Make sure that what answers there will be what is started here.

    Raises:
        RuntimeError: another server listens there.
    """
    try:
        socket.create_connection(endpoint.parse(address), 1).close()
    except OSError:
        return
    raise RuntimeError(f"{address} is taken, perhaps by an earlier make serve; end that one first")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print the step's name, and its time once it is done."""
    print(f"{name} ...", flush=True)
    started = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)


def get_model(name: str) -> None:
    """Fetch and unpack a model of the zoo into this folder, unless it is there."""
    if not Path(f"{name}_model").is_dir():
        subprocess.run([sys.executable, "-m", "paddle_serving_app.package", "--get_model", name], check=True)
        subprocess.run(["tar", "-xzf", f"{name}.tar.gz"], check=True)  # noqa: S607


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a Python command in a process group of its own, so that Ctrl-C reaches it through stop() alone."""
    return subprocess.Popen([sys.executable, *arguments], start_new_session=True)


def first_answer(servers: Sequence[subprocess.Popen[bytes]], chosen: Settings) -> list[str]:
    """The sample's text, as soon as the service has it.

    Raises:
        RuntimeError: a server ended, the service refused the sample, or none answered within START_SECONDS.
    """
    headers = {"Authorization": f"Bearer {chosen.api_keys[0]}".encode()} if chosen.api_keys else {}
    body = {"feed": [{"x": base64.b64encode(SAMPLE.read_bytes()).decode()}], "fetch": ["res"]}
    url = local_url(chosen)
    proxies = endpoint.proxies(url)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if any(server.poll() is not None for server in servers):
            raise RuntimeError("a server did not start")
        try:
            answer = requests.post(url, json=body, headers=headers, timeout=START_SECONDS, proxies=proxies)
        except requests.ConnectionError:
            time.sleep(0.1)
            continue
        if answer.ok:
            return list(answer.json()["result"]["res"])
        if answer.status_code < 500:
            raise RuntimeError(f"the service answered {answer.status_code}: {answer.text.strip()}")
        time.sleep(0.1)
    raise RuntimeError(f"the service did not answer within {START_SECONDS} s")


def usage(chosen: Settings) -> str:
    """How to use what is served."""
    key_flag, key_header = "", ""
    if chosen.api_keys:
        key_flag, key_header = " --key YOUR_KEY", " -H 'Authorization: Bearer YOUR_KEY'"
    return USAGE.format(url=local_url(chosen), sample=SAMPLE, key_flag=key_flag, key_header=key_header)


def stop(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the servers, the last started first; none outlives this."""
    for server in reversed(servers):
        server.terminate()
    for server in reversed(servers):
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
