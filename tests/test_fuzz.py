"""Bytes from outside, damaged in every way that comes to mind, are read or refused: nothing else is raised."""

import base64
from contextlib import suppress

import pytest
from fuzz_targets import REFUSALS, TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXTREMES = st.sampled_from(
    [b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"["]
)


@st.composite
def damaged(draw, seeds):
    """A genuine input, changed in a few places: bytes replaced, taken out, put in, or another input's end put on."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 5))):
        header_first = min(len(data), draw(st.sampled_from([64, 400, len(data)])))
        at = draw(st.integers(0, header_first))
        kind = draw(st.sampled_from(["replace", "remove", "insert", "cut", "splice"]))
        piece = draw(st.one_of(EXTREMES, st.binary(min_size=1, max_size=8)))
        if kind == "replace":
            data[at : at + len(piece)] = piece
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 300))]
        elif kind == "insert":
            data[at:at] = piece
        elif kind == "cut":
            del data[len(data) - at :]
        else:
            other = draw(st.sampled_from(seeds))
            data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_genuine_inputs_are_read(name):
    """Else the damaged ones would be refused at their first byte, and prove nothing."""
    decode, seeds = TARGETS[name]
    for seed in seeds():
        decode(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_inputs_are_read_or_refused(name, data):
    decode, seeds = TARGETS[name]
    with suppress(*REFUSALS):
        decode(data.draw(damaged(list(seeds()))))


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=400))
def test_random_inputs_are_read_or_refused(name, data):
    with suppress(*REFUSALS):
        TARGETS[name][0](data)


INPUT = b'\0\0{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [%b]}]}'
FINDS = {
    "a string that is not UTF-8": ("web-form", b'{"feed": [{"x": "iVBO"}], "fetch": ["\xa0es"]}'),
    "a tensor of strings that are not UTF-8": ("oip-http", INPUT % b'"\xa0"'),
    "a number too large in a tensor of strings": ("oip-http", INPUT % b"1e999"),
    "a BigTIFF directory beyond all addresses": (
        "image",
        base64.b64decode("SUkrAGJtAAAAAAAAAACQrN+iEf/8AAA="),
    ),
    "a timeout of 400 digits": ("oip-http", b'\0\0{"inputs": [], "parameters": {"timeout": 1%b}}' % (b"0" * 400)),
}


@pytest.mark.parametrize("find", FINDS)
def test_what_fuzzing_has_found_is_refused(find):
    name, data = FINDS[find]
    with pytest.raises(REFUSALS):
        TARGETS[name][0](data)
