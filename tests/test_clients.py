"""The HTTP clients as users run them, against a running service."""

import ast
import fcntl
import importlib
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios

import canned_answers
import cv2
import numpy as np
import pytest
import web_stub
from server_process import ROOT, free_port

from ocr_serving import draw, samples
from ocr_serving.settings import Settings

TEXTS = {sample.name: sample.texts for sample in samples.render()}


def run(client, *arguments, cwd=ROOT, stderr=subprocess.PIPE):
    return subprocess.run(
        [sys.executable, str(ROOT / f"{client}_web_client.py"), *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=120,
    )


def answers(done):
    return [ast.literal_eval(line)["result"] for line in done.stdout.splitlines()]


def characters(texts):
    return sorted("".join("".join(texts).split()))


def test_the_ocr_client_prints_an_answer_for_each_image_of_imgs(ocr_debugger):
    done = run("ocr", "--url", ocr_debugger.url)
    assert (done.returncode, done.stderr) == (0, "")
    names = sorted(name for name in TEXTS if name.startswith("imgs/"))
    assert [characters(found["res"]) for found in answers(done)] == [characters(TEXTS[name]) for name in names]


def test_the_rec_client_sends_rec_img_in_one_request(rec_debugger):
    done = run("rec", "--url", rec_debugger.url)
    assert (done.returncode, done.stderr) == (0, "")
    names = sorted(name for name in TEXTS if name.startswith("rec_img/"))
    assert answers(done) == [{"res": [TEXTS[name][0] for name in names]}]


def test_files_and_folders_in_the_order_named(ocr_debugger, tmp_path):
    (tmp_path / "folder").mkdir()
    shutil.copy(ROOT / "rec_img/line_2.png", tmp_path / "folder" / "b.PNG")
    shutil.copy(ROOT / "rec_img/line_1.png", tmp_path / "folder" / "a.png")
    (tmp_path / "folder" / "notes.txt").write_text("not an image")
    done = run("ocr", ROOT / "rec_img/line_3.png", tmp_path / "folder", "--url", ocr_debugger.url)
    assert [found["res"] for found in answers(done)] == [["合计：86.50元"], ["欢迎光临"], ["Platform 3"]]


def test_pictures_have_the_boxes_and_the_texts_drawn_in(ocr_debugger, rec_debugger, tmp_path):
    out = tmp_path / "new" / "pictures"
    done = run("ocr", ROOT / "imgs/sign.jpg", "--out", out, "--url", ocr_debugger.url)
    assert done.returncode == 0, done.stderr
    sign, picture = cv2.imread(str(ROOT / "imgs/sign.jpg")), cv2.imread(str(out / "sign.jpg.png"))
    height, width = sign.shape[:2]
    assert picture.shape == (height, 2 * width, 3)
    assert (picture == draw.BOX_COLOR).all(axis=2)[:, :width].sum() > 1000
    assert np.mean(picture[:, :width] != sign) < 0.05
    (box,) = [box for box, text in zip(*answers(done)[0].values(), strict=True) if text == "东湖公园"]
    x, y, w, h = cv2.boundingRect(np.array(box, np.float32))
    assert (picture[y : y + h, width + x : width + x + w].min(axis=2) < 100).mean() > 0.1

    done = run("rec", ROOT / "rec_img/line_1.png", "--out", out, "--url", rec_debugger.url)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(out / "line_1.png.png")).shape[0] == 2 * cv2.imread(str(ROOT / "rec_img/line_1.png")).shape[0]


def test_pictures_of_a_det_service_have_the_boxes(det_debugger, tmp_path):
    done = run("ocr", ROOT / "imgs/sign.jpg", "--out", tmp_path, "--url", det_debugger.url)
    assert done.returncode == 0, done.stderr
    assert (cv2.imread(str(tmp_path / "sign.jpg.png")) == draw.BOX_COLOR).all(axis=2).sum() > 1000


def test_a_progress_bar_on_a_terminal_only(rec_debugger, ocr_debugger):
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = run("ocr", "rec_img", "--url", ocr_debugger.url, stderr=theirs)
    os.close(theirs)
    assert done.returncode == 0
    assert "5/5" in os.read(mine, 100_000).decode()
    assert len(answers(done)) == 5
    os.close(mine)


def test_no_server_is_said_with_the_command_that_starts_one():
    url = f"http://127.0.0.1:{free_port()}/ocr/prediction"
    for client in ("ocr", "rec"):
        done = run(client, "--url", url)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr == f"No server answers at {url}. Start one with: python3 {client}_web_server.py cpu\n"


def test_a_server_elsewhere_cannot_be_started_from_here():
    url = "http://nowhere.invalid/ocr/prediction"
    done = run("ocr", "--url", url)
    assert done.returncode == 1
    assert done.stderr == f"No server answers at {url}.\n"


def test_a_certificate_that_is_not_trusted_is_said(ocr_debugger):
    """Here there is none at all."""
    done = run("ocr", "imgs/sign.jpg", "--url", ocr_debugger.url.replace("http:", "https:"))
    assert done.returncode == 2
    assert "is not trusted" in done.stderr
    assert "REQUESTS_CA_BUNDLE" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_a_folder_holds_besides_images_is_said(ocr_debugger, tmp_path):
    shutil.copy(ROOT / "rec_img/line_1.png", tmp_path / "IMG_1.PNG")
    for name in ("IMG_2.HEIC", "IMG_3.HEIC", "scan.pdf", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    done = run("ocr", tmp_path, "--url", ocr_debugger.url)
    assert done.returncode == 0
    assert [found["res"] for found in answers(done)] == [["欢迎光临"]]
    assert done.stderr == f"{tmp_path}: left out 3 files (.HEIC, .pdf).\n"


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_said(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    tmp_path.chmod(0o755)
    nobody = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    code = "import sys; from ocr_serving.web_client import main; sys.exit(main('ocr', sys.argv[1:]))"
    for path in (locked, locked / "a.png"):
        done = subprocess.run(
            [*nobody, sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert done.stderr == f"{path} cannot be read: Permission denied.\n"


def test_what_is_not_our_service_is_said(det_debugger):
    done = run("ocr", "--url", det_debugger.url.replace("/ocr/", "/other/"))
    assert done.returncode == 2
    assert done.stderr == "There is no such path; this service answers POST /ocr/prediction.\n"


def test_a_refused_file_is_named_and_the_others_are_answered(ocr_debugger, tmp_path):
    (tmp_path / "1.png").write_bytes(b"not an image")
    shutil.copy(ROOT / "rec_img/line_1.png", tmp_path / "2.png")
    done = run("ocr", tmp_path, "--url", ocr_debugger.url)
    assert done.returncode == 1
    assert [found["res"] for found in answers(done)] == [["欢迎光临"]]
    assert done.stderr.startswith(f"{tmp_path / '1.png'}: This is not an image file")


def test_a_refused_crop_among_others_is_named(rec_debugger, tmp_path):
    shutil.copy(ROOT / "rec_img/line_1.png", tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"not an image")
    done = run("rec", tmp_path, "--text", "--url", rec_debugger.url)
    assert done.returncode == 1
    assert done.stdout == f"== {tmp_path / '1.png'} ==\n欢迎光临\n== {tmp_path / '2.png'} ==\n\n"
    assert done.stderr.startswith(f"{tmp_path / '2.png'}: This is not an image file")


def test_who_reads_only_the_beginning_sees_no_trace(ocr_debugger):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, ROOT / "ocr_web_client.py", "imgs/sign.jpg", "--text", "--url", ocr_debugger.url]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_text_alone(ocr_debugger):
    done = run("ocr", "imgs/sign.jpg", "--text", "--url", ocr_debugger.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert characters(done.stdout.splitlines()) == characters(TEXTS["imgs/sign.jpg"])
    several = run("ocr", "imgs/receipt.jpg", "imgs/sign.jpg", "--text", "--url", ocr_debugger.url).stdout
    assert several.startswith("== imgs/receipt.jpg ==\n")
    assert several.endswith(f"== imgs/sign.jpg ==\n{done.stdout}")


@pytest.mark.parametrize("client", ["ocr", "rec"])
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_answered(client, tmp_path, request):
    server = request.getfixturevalue(f"{client}_debugger")
    (tmp_path / "1.png").mkdir()
    shutil.copy(ROOT / "rec_img/line_1.png", tmp_path / "2.png")
    done = run(client, tmp_path, "--out", tmp_path / "out", "--url", server.url)
    assert done.returncode == 1
    assert [found["res"] for found in answers(done)] == [["欢迎光临"]]
    assert done.stderr == f"{tmp_path / '1.png'} cannot be read: Is a directory.\n"
    assert [picture.name for picture in (tmp_path / "out").iterdir()] == ["2.png.png"]


def test_a_box_that_could_not_be_read_is_said(tmp_path):
    fault = {"code": "ENGINE_FAILED", "message": "The engine broke.", "box": [[0, 0], [9, 0], [9, 9], [0, 9]]}
    body = json.dumps({"result": {"res": ["a"], "errors": [fault]}}).encode()
    with canned_answers.Server(body, "application/json") as server:
        done = run("ocr", ROOT / "imgs/sign.jpg", "--text", "--url", f"http://{server.address}/ocr/prediction")
    assert (done.returncode, done.stdout) == (1, "a\n")
    assert done.stderr == f"{ROOT / 'imgs/sign.jpg'}: The engine broke.\n"


def test_a_picture_that_cannot_be_written_is_said(tmp_path, rec_debugger):
    (tmp_path / "line_1.png.png").mkdir()
    done = run("rec", ROOT / "rec_img/line_1.png", "--out", tmp_path, "--url", rec_debugger.url)
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path / 'line_1.png.png'} cannot be written: Is a directory.\n"


def test_a_broken_image_costs_the_others_no_picture(tmp_path, rec_debugger):
    shutil.copy(ROOT / "rec_img/line_1.png", tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    done = run("rec", tmp_path, "--text", "--out", tmp_path / "out", "--url", rec_debugger.url)
    assert done.returncode == 1
    assert "欢迎光临" in done.stdout
    assert done.stderr.startswith(f"{tmp_path / '2.png'}: ")
    assert [picture.name for picture in (tmp_path / "out").iterdir()] == ["1.png.png"]


def test_an_encoding_without_chinese_is_no_error(rec_debugger, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run("rec", ROOT / "rec_img/line_1.png", "--text", "--url", rec_debugger.url)
    assert (done.returncode, done.stdout) == (0, "\\u6b22\\u8fce\\u5149\\u4e34\n")


def test_this_machine_is_reached_without_the_proxy_of_the_environment(rec_debugger, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert run("rec", ROOT / "rec_img/line_1.png", "--url", rec_debugger.url).returncode == 0


ODD_ANSWERS = {
    "cut off": (
        b'ff\r\n{"result"',
        [("Transfer-Encoding", "chunked"), ("Connection", "close")],
        "is cut off or damaged",
    ),
    "not gzip": (b'{"result":{}}', [("Content-Encoding", "gzip")], "is cut off or damaged"),
    "an error in a string": (b'{"error":"no such service","code":2}', [], "no such service"),
    "no texts": (b'{"result":{"scores":[]}}', [], "The answer holds nothing to draw."),
    "a sentence": (b'{"result":"at most four lines"}', [], "The answer holds nothing to draw."),
}


@pytest.mark.parametrize("case", ODD_ANSWERS)
def test_an_odd_answer_is_said_in_a_line(case, tmp_path):
    body, headers, message = ODD_ANSWERS[case]
    with canned_answers.Server(body, "application/json", headers=headers) as server:
        done = run(
            "rec", ROOT / "rec_img/line_1.png", "--out", tmp_path, "--url", f"http://{server.address}/ocr/prediction"
        )
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


KEY = "schlüssel-0123"


@pytest.fixture
def locked():
    with web_stub.running(Settings(api_keys=(KEY,))) as web:
        yield web


def test_a_key_is_sent(locked):
    arguments = (ROOT / "rec_img/line_1.png", "--url", f"http://127.0.0.1:{locked.port}/ocr/prediction")
    done = run("rec", *arguments, "--key", KEY)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("rec", *arguments)
    assert done.returncode == 2
    assert "An API key is asked for" in done.stderr
    assert "--key" in done.stderr
    assert done.stderr.count("\n") == 1
    done = run("rec", *arguments, "--key", "another key of 20 letters")
    assert done.returncode == 2
    assert done.stderr.startswith("This API key is not known here")


@pytest.fixture
def quickstart(monkeypatch):
    """What `make serve` runs, as a module."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("quickstart")


def test_make_serve_goes_by_the_settings(locked, quickstart):
    chosen = Settings(port=locked.port, api_keys=(KEY,))
    width = cv2.imread(str(quickstart.SAMPLE)).shape[1]
    assert quickstart.first_answer([], chosen) == [str(width)]
    with pytest.raises(RuntimeError, match=r"answered 401: .*An API key is asked for"):
        quickstart.first_answer([], Settings(port=locked.port))


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_make_serve_says_what_to_type(keys, quickstart):
    with web_stub.running(Settings(api_keys=keys)) as web:
        usage = quickstart.usage(Settings(port=web.port, api_keys=keys)).replace("YOUR_KEY", KEY)
        client, curl = re.search(r"( +\S*python .*)\n((?s: +echo .*?))\n\n", usage).groups()
        assert "ocr_web_client.py" in client
        assert run("ocr", *client.split()[2:-1], "rec_img/line_1.png").returncode == 0
        if not shutil.which("curl"):
            pytest.skip("no curl here")
        done = subprocess.run(curl, shell=True, capture_output=True, timeout=60)
        assert "res" in json.loads(done.stdout)["result"], done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "missing.png does not exist."),
        (["empty"], "Folder empty holds no image; what counts as one: .png, .jpg,"),
        (["a" * 300], "cannot be read: File name too long."),
        (["--key", "a\nb", "."], "The API key holds a line break"),
        (["--url", "http://a..b/", "."], "is no URL of a web service"),
        ([], "imgs does not exist."),
        (["--url", "nowhere", "."], "nowhere is no URL of a web service"),
        (["--out", "file", "."], "Folder file cannot be made"),
        (["--out", "x", ".", "a.png"], "Several files are named a.png"),
        (["--bad"], "unrecognized arguments: --bad"),
    ],
)
def test_wrong_arguments_end_with_status_2(tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    shutil.copy(ROOT / "rec_img/line_1.png", tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    done = run("ocr", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
