"""Clients that have connections when their process forks, as multiprocessing and preloaded web servers do."""

import multiprocessing

import numpy as np
from canned_answers import http_clients
from rpc_peers import Doubler, serving

from ocr_serving.model_dir import Variable

CHILDREN, CALLS = 4, 10
EXPECTED = {child: [2 * (100 * child + i) for i in range(CALLS)] for child in range(CHILDREN)}


def answers_in_children(ask):
    """Child -> what it read; all ask at the same time, each for the doubles of its own numbers."""
    fork = multiprocessing.get_context("fork")
    found, together = fork.Queue(), fork.Barrier(CHILDREN)

    def work(child):
        together.wait(10)
        found.put((child, [ask(100 * child + i) for i in range(CALLS)]))

    children = [fork.Process(target=work, args=(child,), daemon=True) for child in range(CHILDREN)]
    for child in children:
        child.start()
    try:
        return dict(found.get(timeout=30) for _ in children)
    finally:
        for child in children:
            child.kill()
            child.join()


def assert_each_reads_its_own(ask):
    assert ask(3) == 6, "there is a connection to inherit"
    assert answers_in_children(ask) == EXPECTED
    assert ask(4) == 8, "the parent keeps its own"


def test_children_have_brpc_connections_of_their_own(client):
    with serving(Doubler()) as server:
        made = client("doubler", [server.address])

        def ask(number):
            answer = made.predict({"image": np.array([number, 1.0])}, ["out"])
            return answer and int(answer["out"][0, 0])

        assert_each_reads_its_own(ask)


def test_children_have_http_connections_of_their_own(tmp_path):
    with serving(Doubler()) as server, http_clients(tmp_path) as make:
        made = make([Variable("x", "image", 1, (2,))])
        made.set_max_retries(2)
        made.connect(server.address)

        def ask(number):
            answer = made.predict({"image": np.array([number, 1.0])}, ["out"])
            return answer and int(answer.outputs[0].tensor[0].float_data[0])

        assert_each_reads_its_own(ask)
