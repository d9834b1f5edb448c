"""An ONNX graph as PyTorch calculates it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocr_serving.engine import onnx_graph
from ocr_serving.engine.torch_operators import OPERATORS, OPSET, refuse_if
from ocr_serving.errors import ConfigError


@dataclass(frozen=True)
class _Step:
    """One node: what it calculates, of which values, and which of all are needed no more after it."""

    calculate: Callable[..., Tensor]
    inputs: tuple[str, ...]
    output: str
    spent: tuple[str, ...]


class TorchGraph:
    """A graph whose constants lie on a device.

    Whole numbers, which are shapes, axes and the like, stay with the CPU, and so do scales: asking a GPU for them would
    hold it up.

    Attributes:
        inputs, outputs: names.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        """
        Args:
            model: onnx.ModelProto. What is float16 in it is calculated in float32.
            device: where it is calculated.

        Raises:
            ConfigError: it has an operator that is not known here.
        """
        graph = model.graph
        scales = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}
        self._constants = {}
        for name, value in onnx_graph.constants(graph).items():
            tensor = torch.tensor(value)
            on_device = tensor.is_floating_point() and name not in scales
            self._constants[name] = tensor.to(device, torch.float32) if on_device else tensor
        self.inputs = tuple(value.name for value in graph.input if value.name not in self._constants)
        self.outputs = tuple(value.name for value in graph.output)
        self._nodes = [node for node in graph.node if node.op_type != "Constant"]
        self._opset = next(opset.version for opset in model.opset_import if not opset.domain)
        made = {"", *self._constants, *self.inputs, *(name for node in self._nodes for name in node.output)}
        for node in self._nodes:
            if node.op_type not in OPERATORS:
                raise ConfigError(f"PyTorch cannot run this model: its operator {node.op_type} is not known here.")
            refuse_if(not made.issuperset(node.input), "Constant")

    def taken_by(self, operator: str, output: str) -> str | None:
        """What the node takes that makes this value, if it is of this operator."""
        return next((node.input[0] for node in self._nodes if output in node.output and node.op_type == operator), None)

    def calculation(self, fetch: Sequence[str]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """What makes the values named `fetch` of the inputs, all on the device.

        Raises:
            ConfigError: it takes an operator used in a way that is not known here.
        """
        steps = self._steps(fetch)

        def calculate(inputs: Sequence[Tensor]) -> list[Tensor]:
            values: dict[str, Tensor | None] = {
                "": None,
                **self._constants,
                **dict(zip(self.inputs, inputs, strict=True)),
            }
            for step in steps:
                values[step.output] = step.calculate(*(values[name] for name in step.inputs))
                for name in step.spent:
                    del values[name]
            return [values[name] for name in fetch]

        return calculate

    def _steps(self, fetch: Sequence[str]) -> list[_Step]:
        """What is to do for these values, in order."""
        wanted = set(fetch)
        kept = []
        for node in reversed(self._nodes):
            if wanted.isdisjoint(node.output):
                continue
            taken = set(node.input) - {""} - self._constants.keys()
            calculate = OPERATORS[node.op_type]({**onnx_graph.attributes(node), OPSET: self._opset})
            kept.append(_Step(calculate, tuple(node.input), node.output[0], tuple(taken - wanted)))
            wanted |= taken
        return kept[::-1]
