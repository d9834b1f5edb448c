"""`serving`, which stands in for Paddle Serving's server binary: its flags, and files that the genuine CLI wrote."""

import base64
import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import server_process
import tiny_model
from rpc_peers import wait_until
from server_process import ROOT, ServerProcess

from ocr_serving.compat.client import Client
from ocr_serving.model_dir import Variable
from ocr_serving.predictor.remote import RemotePredictor
from ocr_serving.server import gflags

SERVING = Path(sys.executable).with_name("serving")
GENUINE = ROOT / "tests" / "data" / "workdir"
"""What `paddle_serving_server.serve --model ocr_det_model ocr_rec_model --op GeneralDetectionOp GeneralInferOp` of 0.9
wrote, port 19293."""
SUCCESS = "C++ Serving service started successfully!"
X = np.ones((1, tiny_model.SIZE), np.float32)
FILES = {
    "infer_service.prototxt": 'port: PORT services { name: "GeneralModelService" workflows: "workflow1" }',
    "workflow.prototxt": """
        workflows {
          name: "workflow1" workflow_type: "Sequence"
          nodes { name: "GeneralReaderOp_0" type: "GeneralReaderOp" }
          nodes { name: "GeneralInferOp_0" type: "GeneralInferOp" dependencies { name: "GeneralReaderOp_0" } }
          nodes { name: "GeneralResponseOp_0" type: "GeneralResponseOp" dependencies { name: "GeneralInferOp_0" } }
        }""",
    "resource.prototxt": """
        model_toolkit_path: "work" model_toolkit_file: "GeneralInferOp_0/model_toolkit.prototxt"
        general_model_path: "work" general_model_file: "GeneralInferOp_0/general_model.prototxt" """,
    "GeneralInferOp_0/model_toolkit.prototxt": """
        engines {
          name: "GeneralInferOp_0" type: "PADDLE_INFER" reloadable_meta: "tiny_model/fluid_time_file"
          model_dir: "tiny_model" gpu_ids: -1 use_gpu: false runtime_thread_num: 2 batch_infer_size: 4
        }""",
    "GeneralInferOp_0/general_model.prototxt": """
        feed_var { name: "x" alias_name: "in" feed_type: 1 } fetch_var { name: "y" alias_name: "out" }""",
}
"""Of a server with one op."""


def flags(workdir: str, *more: str) -> list[str]:
    """The command line as the genuine CLI writes it; later flags win."""
    line = (
        f"-enable_model_toolkit -inferservice_path {workdir} -inferservice_file infer_service.prototxt "
        f"-max_concurrency 0 -num_threads 4 -port 1 -precision fp32 -use_calib=False -reload_interval_s 10 "
        f"-resource_path {workdir} -resource_file resource.prototxt -workflow_path {workdir} "
        "-workflow_file workflow.prototxt -bthread_concurrency 4 -max_body_size 536870912"
    )
    return [*line.split(), *more]


@contextlib.contextmanager
def serving(arguments: list[str], port: int, cwd: Path) -> Iterator[ServerProcess]:
    with server_process.running([str(SERVING), *arguments], port, cwd) as server:
        yield server


def replace(file: Path, *changes: str) -> None:
    """Change the texts at even places into those after them; each must be there."""
    text = file.read_text()
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Path, int]:
    """A working directory with tiny_model and FILES, and the port they name."""
    port = server_process.free_port()
    for name, text in FILES.items():
        file = tmp_path / "work" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("PORT", str(port)))
    tiny_model.write(tmp_path / "tiny_model", 2)
    (tmp_path / "tiny_model" / "serving_server_conf.prototxt").unlink()
    return tmp_path, port


def call(port: int) -> float:
    """One request under the aliases that the working directory declares."""
    variables = (Variable("x", "in", 1, ()),), (Variable("y", "out", 1, ()),)
    with contextlib.closing(RemotePredictor(f"127.0.0.1:{port}", *variables)) as client:
        return float(client.predict({"in": X}, ["out"])["out"][0, 0])


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_the_flags_and_what_a_person_would_type(flag, tmp_path):
    done = subprocess.run([sys.executable, SERVING, flag], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "-resource_path" in done.stdout
    assert "python3 -m paddle_serving_server.serve --help" in done.stdout


def test_the_files_of_a_genuine_installation_make_the_chained_server(models, tmp_path):
    port = server_process.free_port()
    shutil.copytree(GENUINE, tmp_path / "workdir_19293")
    replace(tmp_path / "workdir_19293" / "infer_service.prototxt", "19293", str(port))
    for name in ("ocr_det_model", "ocr_rec_model"):
        (tmp_path / name).symlink_to((models / name).resolve())
    with serving(flags("workdir_19293"), port, tmp_path) as server:
        server.wait_for_output(SUCCESS)
        client = Client(raise_on_error=True)
        confs = [GENUINE / op / "general_model.prototxt" for op in ("GeneralDetectionOp_0", "GeneralInferOp_0")]
        client.load_client_config([str(conf) for conf in confs])
        client.connect([f"127.0.0.1:{port}"])
        image = base64.b64encode((ROOT / "imgs" / "sign.jpg").read_bytes()).decode()
        assert "EAST LAKE PARK" in client.predict({"x": image}, ["res"])["res"]
        assert "no effect" not in server.output


def test_the_files_port_wins_and_their_aliases_count(tiny):
    """The model folder itself has no configuration: the original's binary reads the working directory's alone."""
    folder, port = tiny
    with serving(flags("work"), port, folder) as server:
        assert call(port) == 2
        server.wait_for_output(SUCCESS)
        assert server.output.index("Serving tiny_model on") < server.output.index(SUCCESS)


def test_without_a_port_in_the_files_the_flag_counts(tiny):
    folder, port = tiny
    replace(folder / "work" / "infer_service.prototxt", f"port: {port}", "")
    with serving(flags("work", f"--port={port}"), port, folder):
        assert call(port) == 2


@pytest.mark.parametrize("touched", ["tiny_model/fluid_time_file", "work/GeneralInferOp_0/fluid_time_file"])
def test_touching_the_model_or_its_op_loads_the_model_anew(tiny, touched):
    folder, port = tiny
    with serving(flags("work", "-reload_interval_s", "0.05"), port, folder):
        assert call(port) == 2
        tiny_model.write(folder / "tiny_model", 3)
        (folder / touched).touch()
        wait_until(lambda: call(port) == 3)


def test_flags_of_brpc_itself_are_taken_and_named(tiny):
    folder, port = tiny
    with serving(flags("work", "-event_dispatcher_num", "2", "--log_connection_close=true"), port, folder) as server:
        assert call(port) == 2
        server.wait_for_output("-event_dispatcher_num, -log_connection_close: no effect here.")


def test_enable_prometheus_and_precision_are_honoured(tiny):
    folder, port = tiny
    metrics = server_process.free_port()
    more = ["-enable_prometheus=True", "-prometheus_port", str(metrics), "-precision", "banana"]
    with serving(flags("work", *more), port, folder) as server:
        server.wait_for_output("precision banana: no effect here")
        socket.create_connection(("127.0.0.1", metrics), 5).close()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda work: (work / "resource.prototxt").unlink(), "work/resource.prototxt cannot be read"),
        (lambda work: (work / "workflow.prototxt").write_text("workflows {"), "work/workflow.prototxt is damaged"),
        (
            lambda work: replace(work / "workflow.prototxt", 'type: "GeneralInferOp"', 'type: "MyOp"'),
            "There is no op MyOp; there are GeneralReaderOp",
        ),
        (
            lambda work: replace(work / "workflow.prototxt", 'dependencies { name: "GeneralReaderOp_0" }', ""),
            "GeneralInferOp_0 does not follow the op before it; only sequences are served here.",
        ),
        (
            lambda work: replace(work / "infer_service.prototxt", "workflow1", "workflow2"),
            "must name one workflow of work/workflow.prototxt",
        ),
        (
            lambda work: replace(work / "GeneralInferOp_0" / "model_toolkit.prototxt", "GeneralInferOp_0", "Other_0"),
            "work/resource.prototxt names no model for GeneralInferOp_0.",
        ),
        (
            lambda work: replace(work / "GeneralInferOp_0" / "model_toolkit.prototxt", "tiny_model", "nowhere"),
            "Model folder nowhere does not exist",
        ),
    ],
)
def test_what_is_wrong_in_the_files_is_one_line_and_status_2(tiny, change, sentence):
    folder, _ = tiny
    change(folder / "work")
    done = subprocess.run([SERVING, *flags("work")], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert SUCCESS not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["start"], "'start' is no flag"),
        (["-port"], "-port needs a value."),
        (["-port", "many"], "-port takes a whole number, not 'many'."),
        ([*flags("work"), "-enable_prometheus=perhaps"], "-enable_prometheus is true or false, not 'perhaps'."),
        ([*flags("work"), "-reload_interval_s", "-1"], "reload_interval"),
    ],
)
def test_what_is_wrong_in_the_flags_is_one_line_and_status_2(tiny, arguments, sentence):
    folder, _ = tiny
    done = subprocess.run([SERVING, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("-port 1 --port=2", {"port": "2"}),
        ("-on", {"on": "true"}),
        ("-noon --port 3", {"on": "false", "port": "3"}),
        ("-on=False -port -1", {"on": "False", "port": "-1"}),
        ("-on -port=", {"on": "true", "port": ""}),
        ("-other 5 -more -port 1", {"other": "5", "more": "", "port": "1"}),
    ],
)
def test_flags_in_all_of_gflags_forms(line, found):
    assert gflags.parse(line.split(), {"on"}, {"port"}) == found
