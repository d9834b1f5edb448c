"""The bRPC client under its old name and its servers: broken, dead, full, silent, several."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from compat_clients import IMAGE, SMALL
from rpc_peers import Doubler, serving
from scripted_peer import answer_with, error_with, peer

from ocr_serving.deadline import Deadline
from ocr_serving.errors import DeadlineExceeded, EngineFailed, Overloaded, UpstreamUnavailable
from ocr_serving.wire.tensor import Tensor


def test_failed_calls_return_none_or_raise_as_asked(client):
    with peer(error_with(-5100, "[127.0.0.1:9][E-5100]InferService inference failed!")) as server:
        assert client("f32", [server.address]).predict({"image": IMAGE}, need_variant_tag=True) is None
        with pytest.raises(EngineFailed, match=r"^InferService inference failed!$"):
            client("f32", [server.address], raise_on_error=True).predict({"image": IMAGE})
    assert client("f32", [server.address]).predict({"image": IMAGE}) is None, "the server is gone"
    with pytest.raises(UpstreamUnavailable):
        client("f32", [server.address], raise_on_error=True).predict({"image": IMAGE})


def test_a_broken_connection_is_tried_three_times(client):
    with peer(lambda *_: None) as server:
        assert client("f32", [server.address]).predict({"image": IMAGE}) is None
    assert server.connections == 3


def test_variants_are_chosen_by_weight(client, caplog):
    with peer(answer_with(Tensor("a", "out", SMALL.astype(np.float32)))) as server:
        made = client("f32")
        made.add_variant("never", ["127.0.0.1:1"], 0)
        made.add_variant("often", [server.address], 90)
        made.add_variant("seldom", [f"{server.address},{server.address}"], "10")
        with caplog.at_level(logging.WARNING):
            made.connect(["127.0.0.1:1"])
        tags = [made.predict({"image": IMAGE}, ["out"], need_variant_tag=True)[1] for _ in range(200)]
    assert "no effect" in caplog.text
    assert 140 < tags.count("often") < 199
    assert tags.count("seldom") == 200 - tags.count("often")


def test_a_dead_server_among_several_costs_no_call(client):
    with serving(Doubler()) as first, serving(Doubler()) as second:
        made = client("doubler", ["127.0.0.1:1", first.address, second.address])
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: made.predict({"image": np.array([i, 2])}, ["out"]), range(60)))
    for i, result in enumerate(found):
        np.testing.assert_array_equal(result["out"], [[2 * i, 4]])


@pytest.mark.parametrize(("code", "error"), [(2003, UpstreamUnavailable), (2004, Overloaded)])
def test_a_stopping_or_full_server_hands_on_to_another(client, code, error):
    feed = {"image": np.array([1, 2])}
    with peer(error_with(code, "not now")) as full, serving(Doubler()) as server:
        made = client("doubler", [full.address, server.address])
        for _ in range(4):
            assert made.predict(feed, ["out"]) is not None
        with pytest.raises(error, match="not now"):
            client("doubler", [full.address], raise_on_error=True).predict(feed, ["out"])


@pytest.mark.parametrize("how", ["set_rpc_timeout_ms", "deadline"])
def test_a_silent_server_costs_the_timeout(client, how):
    doubler = Doubler()
    with serving(doubler) as server:
        made = client("doubler", [server.address], raise_on_error=True)
        if how == "set_rpc_timeout_ms":
            made.set_rpc_timeout_ms(300)
        deadline = Deadline.after(0.3) if how == "deadline" else None
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            made.predict({"image": np.array([-1, 0])}, ["out"], deadline=deadline)
        assert time.monotonic() - begin < 5
