"""The metadata of an ONNX file, read from its bytes."""

from __future__ import annotations

import base64
import contextlib
import tempfile
from pathlib import Path

import onnxruntime
import zoo_models
from hypothesis import given
from hypothesis import strategies as st

from ocr_serving import onnx_metadata
from ocr_serving.errors import ConfigError


def test_metadata_is_what_onnxruntime_reads() -> None:
    path = zoo_models.folder("ocr_rec") / "inference.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert onnx_metadata.read(path) == session.get_modelmeta().custom_metadata_map


@given(st.binary(max_size=60))
def test_metadata_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(ConfigError):
            onnx_metadata.read(Path(file.name))


def test_metadata_behind_other_fields() -> None:
    # ir_version = 7 (varint), graph (empty), metadata_props {key: "k", value: "v"}; written by hand from onnx.proto
    data = base64.b16decode("0807" + "3A00" + "7206" + "0A016B" + "120176")
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        assert onnx_metadata.read(Path(file.name)) == {"k": "v"}
