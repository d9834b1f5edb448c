"""The inputs and outputs of a model file, read without running it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ocr_serving.engine import openvino_package
from ocr_serving.errors import ConfigError
from ocr_serving.model_dir import Variable

_ELEM_TYPES = {
    "i64": 0, "f32": 1, "i32": 2, "f64": 3, "i16": 4, "f16": 5, "bf16": 6, "u8": 7, "ui8": 7, "i8": 8, "bool": 9,
    "boolean": 9,
}  # fmt: skip
"""OpenVINO's and PIR's names of element types -> Paddle Serving's numbers."""


def read(model: Path, params: Path | None) -> tuple[list[Variable], list[Variable]]:
    """The (inputs, outputs) of a model in the graph's order; aliases are the names, shapes hold the fixed dimensions.

    Args:
        model: PIR *.json, or an ONNX or .pdmodel file, whatever it is called.
        params: the parameters of a *.pdmodel.

    Raises:
        ConfigError: a file is damaged or of another kind, or a variable is of a type that cannot be served.
    """
    return _read_pir(model) if model.suffix == ".json" else _read_openvino(model, params)


def _read_openvino(model: Path, params: Path | None) -> tuple[list[Variable], list[Variable]]:
    graph = openvino_package.read_model(openvino_package.load().Core(), model, params)

    def variable(port: Any) -> Variable:
        dims = [dim.get_length() for dim in port.get_partial_shape() if dim.is_static]
        return _variable(port.get_any_name(), port.get_element_type().get_type_name(), dims)

    return [variable(port) for port in graph.inputs], [variable(port) for port in graph.outputs]


def _read_pir(model: Path) -> tuple[list[Variable], list[Variable]]:
    """PIR is JSON: ops "1.data" are the inputs and "1.fetch" the outputs, each with a name and one typed result."""
    try:
        program = msgspec.json.decode(model.read_bytes())["program"]
        ops = program["regions"][0]["blocks"][0]["ops"]
        return list(_pir_variables(ops, "1.data")), list(_pir_variables(ops, "1.fetch"))
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"{model.name} is damaged: it is no PIR program.") from error


def _pir_variables(ops: Sequence[dict[str, Any]], kind: str) -> Iterator[Variable]:
    for op in ops:
        if op["#"] == kind:
            (name,) = (attribute["AT"]["D"] for attribute in op["A"] if attribute["N"] == "name")
            elem_type, dims = op["O"][0]["TT"]["D"][:2]
            yield _variable(name, elem_type["#"].removeprefix("0.t_"), dims)


def _variable(name: str, elem_type: str, dims: Sequence[int]) -> Variable:
    if elem_type not in _ELEM_TYPES:
        raise ConfigError(f"Variable {name} is of type {elem_type}, which cannot be served.")
    return Variable(name, name, _ELEM_TYPES[elem_type], tuple(dim for dim in dims if dim >= 0))
