"""The bRPC client under its old name: genuine conversations replayed, and its bugs fixed."""

import contextlib
import inspect
import time

import numpy as np
import pytest
from compat_clients import CONFIGS, IDS, IMAGE, SMALL
from rpc_peers import CAPTURES
from scripted_peer import Peer, answer_with, joined, peer

from ocr_serving.compat import feeds
from ocr_serving.compat.feeds import BadCall
from ocr_serving.deadline import Deadline
from ocr_serving.errors import ClientLeft, ConfigError
from ocr_serving.model_dir import Variable
from ocr_serving.wire import frame, messages, meta
from ocr_serving.wire import general_model_pb2 as pb
from ocr_serving.wire.fields import delimited
from ocr_serving.wire.tensor import Tensor, dtype_of
from paddle_serving_client import Client


@contextlib.contextmanager
def replaying(name):
    """A peer that answers with what the genuine client got in that capture."""
    answer = (CAPTURES / "responses" / f"{name}.bin").read_bytes()
    with peer(lambda *_: answer) as server:
        yield server


def bytes_of(server: Peer):
    [request] = server.requests
    return joined(frame.encode(request.meta, [request.payload]))


CALLS = {
    "f32_batchTrue": ("f32", {"image": IMAGE[None]}, ["out"], {"batch": True}),
    "f32_batchTrue_n2_logid": (
        "f32",
        {"image": np.stack([IMAGE, IMAGE + 1])},
        ["out"],
        {"batch": True, "log_id": 12345678901},
    ),
    "f32_fetch_empty": ("f32", {"image": IMAGE}, [], {}),
    "f32_fetch_unknown": ("f32", {"image": IMAGE}, ["nope"], {}),
    "i64_batchTrue": ("i64", {"words": IDS}, ["out"], {}),
    "i32_batchTrue": ("i32", {"num": np.array([1, -2, 3, 4])}, ["out"], {}),
    "u8_batchTrue": ("u8", {"img8": SMALL}, ["out"], {"batch": True}),
    "i8_batchTrue": ("i8", {"img8": SMALL}, ["out"], {"batch": True}),
    "f16_batchTrue": ("f16", {"half": SMALL}, ["out"], {"batch": True}),
    "str_batchTrue": ("str", {"image": "aGVsbG8="}, ["out"], {"batch": True}),
    "str_nofetch": ("str", {"image": b"aGVsbG8="}, None, {}),
    "lod_batchTrue": (
        "lod",
        {"words": np.arange(1, 6).reshape(5, 1), "words.lod": [0, 2, 5]},
        ["out"],
        {"batch": True},
    ),
    "multi_batchTrue": (
        "multi",
        {
            "words": np.array([[1, 2, 3]]),
            "num": np.array([[7]]),
            "im_shape": np.zeros((1, 2)),
            "image": np.ones((1, 2)),
        },
        ["o1", "o2"],
        {"batch": True},
    ),
    "two_confs": (["f32", "i64"], {"image": IMAGE[None]}, "out", {"batch": True}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_genuine_conversation_is_repeated_byte_for_byte(client, name):
    """The same call sends what the genuine client sent, and its answer becomes what the genuine client returned."""
    config, feed, fetch, options = CALLS[name]
    with replaying(name) as server:
        result = client(config, [server.address]).predict(feed=feed, fetch=fetch, **options)
    assert bytes_of(server) == (CAPTURES / "requests" / f"{name}.bin").read_bytes()
    _, fetches = CONFIGS[config if isinstance(config, str) else config[-1]]
    assert list(result) == [variable.alias for variable in fetches]
    for variable in fetches:
        expected = SMALL.astype(dtype_of(variable.elem_type))
        np.testing.assert_array_equal(result[variable.alias], expected, strict=True)


@pytest.mark.parametrize(
    "feed",
    [
        {"image": IMAGE},
        [{"image": IMAGE}],
        {"image": IMAGE.astype(np.float64)},
        {"image": IMAGE.transpose(2, 1, 0).copy().transpose(2, 1, 0)},
    ],
)
def test_batch_false_casts_and_leaves_the_feed_as_it_is(client, feed):
    """Quirk of the original: it put the batch dimension into the caller's dict, so a second call had two."""
    with replaying("f32_batchTrue") as server:
        for _ in range(2):
            client("f32", [server.address]).predict(feed=feed, fetch=["out"])
    image = (feed[0] if isinstance(feed, list) else feed)["image"]
    assert image.shape == IMAGE.shape
    for request in server.requests:
        sent = joined(frame.encode(request.meta, [request.payload]))
        assert sent == (CAPTURES / "requests" / "f32_batchTrue.bin").read_bytes()


@pytest.mark.parametrize("feed", [{"image": IMAGE.ravel().tolist()}, IMAGE.ravel().tolist()])
def test_a_list_is_taken_for_the_only_input(client, feed):
    with replaying("f32_batchTrue") as server:
        client("f32", [server.address]).predict(feed=feed, fetch=["out"])
    [packed] = messages.decode_request(server.requests[0].message()).tensors
    np.testing.assert_array_equal(packed.unpack(), IMAGE.reshape(1, 24))


@pytest.mark.parametrize(
    ("config", "feed", "sentence"),
    [
        ("f32", None, "You should specify feed for prediction"),
        ("f32", {"nope": IMAGE}, "Wrong feed name: nope."),
        ("f32", [IMAGE, IMAGE], "The shape of feed tensor image not match."),
        ("f32", {"image": IMAGE.tolist()}, "The shape of feed tensor image not match."),
        ("multi", [1, 2], "input is a list, but we got 0 or 2"),
        ("f32", "text", "Feed only accepts dict and list of dict"),
        ("f32", {"image": np.array(["text"])}, "cannot become"),
        ("f32", {"image": np.array([object()])}, "cannot become"),
        ("str", {"image": 3}, "must be a string"),
        ("str", {"image": [["a"], ["b", "c"]]}, "The shape of feed tensor image not match."),
        ("f32", {"image": [[0.0], *[[0.0, 1.0]] * 23]}, "The shape of feed tensor image not match."),
        ("f32", {7: IMAGE}, "Wrong feed name: 7."),
        ("lod", {"words": IDS, "words.lod": ["a"]}, "Feed words.lod must be a list of whole numbers."),
        ("lod", {"words": IDS, "words.lod": 2}, "Feed words.lod must be a list of whole numbers."),
    ],
)
def test_wrong_feeds_are_value_errors_as_in_the_original(client, config, feed, sentence):
    with pytest.raises(BadCall, match=sentence):
        client(config, ["127.0.0.1:1"]).predict(feed=feed, fetch=["out"])


def test_a_caller_who_leaves_is_noticed_whatever_the_timeout(client):
    with replaying("f32_batchTrue") as server:
        made = client("f32", [server.address], raise_on_error=True)
        made.set_rpc_timeout_ms(1000)
        with pytest.raises(ClientLeft):
            made.predict({"image": IMAGE}, ["out"], deadline=Deadline(time.monotonic() + 60, lambda: True))


def test_answers_of_the_servers_odd_modes(client, caplog):
    def call(name):
        with replaying(name) as server:
            return client("f32", [server.address]).predict({"image": IMAGE}, ["out"])

    np.testing.assert_array_equal(call("mode_bare")["out"], SMALL)
    np.testing.assert_array_equal(call("mode_errno")["out"], SMALL)
    assert call("mode_errno_noout") == {}
    with pytest.raises(ValueError, match=r"Failed to fetch, maybe the type of \[out\] is wrong"):
        call("mode_empty")
    assert call("mode_error") is None
    assert "boom" in caplog.text


def test_an_output_of_another_type_than_declared_is_a_value_error(client):
    with replaying("i64_batchTrue") as server, pytest.raises(ValueError, match="type of"):
        client("f32", [server.address]).predict({"image": IMAGE}, ["out"])


@pytest.mark.parametrize(("shape", "dtype"), [((3, 4, 4), np.uint8), ((3,), np.uint8), ((4, 4, 3), np.float32)])
def test_pixels_stay_bytes_where_the_model_takes_channels_first(shape, dtype):
    """Then it is the engine that normalises them; all else becomes what the model declares, as in the original."""
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    assert feeds.as_array(pixels, Variable("x", "x", 1, shape), True).dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float16])
def test_outputs_of_any_bytes_are_read(client, dtype):
    """Quirk of the original: a UnicodeDecodeError for any byte from 0x80 on."""
    outputs = np.array([[0, 127, 128, 255]], np.uint8).view(dtype)
    name = {"uint8": "u8", "int8": "i8", "float16": "f16"}[np.dtype(dtype).name]
    with peer(answer_with(Tensor("s0", "out", outputs))) as server:
        result = client(name, [server.address]).predict({CONFIGS[name][0][0].alias: SMALL}, ["out"])
    np.testing.assert_array_equal(result["out"], outputs)


def test_arrays_are_the_callers_own_however_they_came(client):
    """A field sent twice is legal, and its array then lies in memory that cannot be written."""

    def answer(_, request):
        twice = pb.Tensor(elem_type=7, shape=[2, 3], alias_name="out", tensor_content=bytes(6)).SerializeToString()
        twice += pb.Tensor(tensor_content=bytes(range(6))).SerializeToString()
        output = joined([*delimited(1, [twice])])
        return joined(frame.encode(meta.for_success(request.meta.correlation_id), delimited(1, [output])))

    with peer(answer) as server:
        result = client("u8", [server.address]).predict({"img8": SMALL}, ["out"])
    np.testing.assert_array_equal(result["out"], SMALL)
    result["out"] += 1


@pytest.mark.parametrize(("elem_type", "dtype"), [(3, np.float64), (4, np.int16), (9, np.bool_)])
def test_types_that_the_original_dropped_are_sent(client, monkeypatch, elem_type, dtype):
    config = [Variable("x", "image", elem_type, (2, 3))], [Variable("s", "out", elem_type, (3,))]
    monkeypatch.setitem(CONFIGS, "new", config)
    with peer(answer_with(Tensor("s", "out", SMALL.astype(dtype)))) as server:
        result = client("new", [server.address]).predict({"image": SMALL}, ["out"], batch=True)
    [packed] = messages.decode_request(server.requests[0].message()).tensors
    np.testing.assert_array_equal(packed.unpack(), SMALL.astype(dtype), strict=True)
    np.testing.assert_array_equal(result["out"], SMALL.astype(dtype), strict=True)


def test_outputs_that_the_configuration_does_not_know_come_back_too(client):
    """Quirk of the original: a KeyError where the server returned more than the client knew of."""
    with peer(answer_with(Tensor("a", "out", SMALL.astype(np.float32)), Tensor("b", "more", SMALL))) as server:
        result = client("f32", [server.address]).predict({"image": IMAGE}, fetch=[])
    assert list(result) == ["out", "more"]
    assert result["more"].dtype == np.int64


def test_an_answer_without_rows_is_an_answer(client):
    """A page without text: the chained server has no lines to return."""
    nothing = np.zeros((0, 40, 6625), np.float32)
    with peer(answer_with(Tensor("a", "out", nothing))) as server:
        result = client("f32", [server.address]).predict({"image": IMAGE}, ["out"])
    assert result["out"].shape == (0, 40, 6625)


def test_offsets_come_back_with_their_output(client):
    with peer(
        answer_with(Tensor("s0", "o1", SMALL.astype(np.float32), lod=[0, 2]), Tensor("s1", "o2", SMALL, lod=[0, 1, 2]))
    ) as server:
        result = client("multi", [server.address]).predict({"image": np.ones(2)}, ["o1", "o2"])
    assert list(result) == ["o1", "o2", "o2.lod"], "o1 is no such tensor in the configuration"
    np.testing.assert_array_equal(result["o2.lod"], [0, 1, 2])


def test_several_engines_answer_under_their_names(client):
    def answer(_, request):
        response = pb.Response()
        for name in ("GeneralInferOp_0", "GeneralInferOp_1"):
            output = response.outputs.add(engine_name=name)
            output.tensor.add(alias_name="out", elem_type=1, shape=[1], float_data=[int(name[-1])])
        return joined(frame.encode(meta.for_success(request.meta.correlation_id), [response.SerializeToString()]))

    with peer(answer) as server:
        result = client("f32", [server.address]).predict({"image": IMAGE}, ["out"])
    assert {name: outputs["out"].tolist() for name, outputs in result.items()} == {
        "GeneralInferOp_0": [0.0],
        "GeneralInferOp_1": [1.0],
    }


def test_setting_up_wrongly_is_said_in_words(client, tmp_path):
    with pytest.raises(ConfigError, match="load_client_config"):
        Client().predict({"image": IMAGE})
    with pytest.raises(ConfigError, match="connect"):
        client("f32").predict({"image": IMAGE})
    with pytest.raises(ValueError, match="You must set the endpoints parameter or use add_variant"):
        client("f32").connect()
    with pytest.raises(ValueError, match="rpc_timeout must be int"):
        client("f32").set_rpc_timeout_ms("20")
    with pytest.raises(ConfigError, match="Encrypted"):
        client("f32").connect(["127.0.0.1:1"], encryption=True)
    with pytest.raises(ConfigError, match="no address"):
        client("f32").connect(["nowhere"])
    with pytest.raises(ConfigError, match="cannot be read"):
        Client().load_client_config(str(tmp_path / "none.prototxt"))
    released = client("f32", ["127.0.0.1:1"])
    released.release()
    with pytest.raises(ConfigError, match="connect"):
        released.predict({"image": IMAGE})


def test_names_and_signature_are_the_originals(client):
    made = client(["multi", "f32"])
    assert made.get_feed_names() == ["image", "im_shape", "num", "words"]
    assert made.get_fetch_names() == ["out"]
    parameters = list(inspect.signature(Client.predict).parameters)
    assert parameters[1:6] == ["feed", "fetch", "batch", "need_variant_tag", "log_id"]
