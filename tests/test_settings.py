"""Settings as users give them: where they come from, which wins, what is refused in which words, what --help says."""

import argparse

import msgspec
import pytest

from ocr_serving import settings
from ocr_serving.errors import ConfigError
from ocr_serving.settings import Settings


def load(environ=None, flags=None, file=None):
    return settings.load(flags, file=file, environ=environ or {})


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "ocr.toml"
    file.write_text("port = 1\nmax_images = 2\nrec_batch = 3\n")
    found = load({"OCR_PORT": "11", "OCR_MAX_IMAGES": "12", "PORT": "13"}, {"port": "21", "host": None}, file)
    assert (found.port, found.max_images, found.rec_batch, found.host) == (21, 12, 3, "127.0.0.1")
    assert load({"OCR_SETTINGS": str(file)}).rec_batch == 3


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"OCR_PROT": "1"}, r"Unknown setting prot in the environment \(OCR_\*\)\. Did you mean port\?"),
        ({"OCR_PORT": "0"}, r"^port in the environment \(OCR_\*\) must be a whole number from 1 up to 65535\.$"),
        ({"OCR_PORT": "x"}, r"port .* must be a whole number"),
        ({"OCR_REQUEST_TIMEOUT": "inf"}, r"request_timeout .* must be a number above 0 up to 86400"),
        ({"OCR_REQUEST_TIMEOUT": "nan"}, r"request_timeout .* must be a number above 0"),
        ({"OCR_REQUEST_TIMEOUT": "0"}, r"request_timeout .* must be a number above 0"),
        ({"OCR_DET_BOX_THRESH": "nan"}, r"det_box_thresh .* must be a number from 0 up to 1"),
        ({"OCR_ENGINE": "fast"}, r"engine .* must be auto, openvino, paddle, onnxruntime or torch"),
        ({"OCR_PUBLIC_METRICS": "maybe"}, r"public_metrics .* must be true or false"),
        ({"OCR_API_KEYS": "short"}, r"api_keys .* must be texts of 8 characters or more, divided by commas"),
    ],
)
def test_what_is_no_setting_is_refused_in_words(environ, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load(environ)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("port = ", "is not valid TOML"), ("prot = 1", "Unknown setting prot in .*ocr.toml. Did you mean port"),
     ("[web]\nport = 1", "Unknown setting web"), ("api_keys = 8", "api_keys in .*ocr.toml must be texts")],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_said_with_its_name(tmp_path, text, sentence):
    file = tmp_path / "ocr.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        load(file=file)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(file=tmp_path / "no.toml")


@pytest.mark.parametrize("text", ["0.5", ".5", "5e-1", "+.5", " 0.5 "])
def test_numbers_may_be_written_as_people_write_them(text):
    for found in (load({"OCR_DET_BOX_THRESH": text}), load(flags={"det_box_thresh": text})):
        assert found.det_box_thresh == 0.5


def test_api_keys_are_divided_by_commas_with_or_without_spaces(tmp_path):
    file = tmp_path / "ocr.toml"
    file.write_text('api_keys = ["key-one-1234 ", "key-two-5678"]')
    keys = ("key-one-1234", "key-two-5678")
    assert load({"OCR_API_KEYS": "key-one-1234, key-two-5678,"}).api_keys == load(file=file).api_keys == keys


def test_variables_that_kubernetes_sets_for_services_named_ocr_are_no_settings():
    links = {
        "OCR_SERVICE_HOST": "10.0.0.1",
        "OCR_SERVICE_PORT": "9292",
        "OCR_SERVICE_PORT_HTTP": "9292",
        "OCR_PORT": "tcp://10.0.0.1:9292",
        "OCR_PORT_9292_TCP": "tcp://10.0.0.1:9292",
        "OCR_PORT_9292_TCP_PROTO": "tcp",
        "OCR_PORT_9292_TCP_PORT": "9292",
        "OCR_PORT_9292_TCP_ADDR": "10.0.0.1",
        "OCR_WEB_SERVICE_HOST": "10.0.0.2",
        "OCR_WEB_PORT": "tcp://10.0.0.2:9292",
        "OCR_WEB_PORT_9292_TCP_ADDR": "10.0.0.2",
    }
    assert load({**links, "OCR_WORKER_PORT": "13000"}) == Settings(worker_port=13000)


def test_only_what_kubernetes_sets_is_passed_over():
    assert load({"OCR_DET_ENDPOINT": "tcp://det:9293"}).det_endpoint == "tcp://det:9293", "which the service refuses"
    with pytest.raises(ConfigError, match="Unknown setting web_host"):
        load({"OCR_WEB_HOST": "tcp://10.0.0.1"})


def test_settings_pass_to_another_process_unchanged():
    chosen = Settings(api_keys=("key-one-1234", "key-two-5678"), public_metrics=False, det_thresh=0.25, threads=3)
    assert load(chosen.environ()) == chosen


def test_help_says_of_each_setting_what_it_is_for_and_its_default():
    parser = argparse.ArgumentParser()
    settings.add_flags(parser)
    text = " ".join(parser.format_help().split())
    for field in msgspec.structs.fields(Settings):
        assert f"--{field.name.replace('_', '-')} " in text
    assert "--request-timeout VALUE Seconds until a request is answered with 504. Default: 60.0." in text
    assert "--device cpu|gpu Where inference runs. Default: cpu." in text
    assert "open to all. Default: none." in text
