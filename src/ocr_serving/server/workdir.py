"""The files that Paddle Serving writes for its server binary: what it is to serve, and from where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ocr_serving import prototxt
from ocr_serving.errors import ConfigError
from ocr_serving.server.workflow import OPS, READER, RESPONSE, TOUCHED, Step
from ocr_serving.settings import Settings
from ocr_serving.wire import workdir_pb2 as pb


@dataclass(frozen=True)
class Workdir:
    """What the files say.

    Attributes:
        port: from infer_service.prototxt, which wins over the command line's; None where it has none.
        nodes: the ops that take a model, in order, each with its engine.
    """

    port: int | None
    nodes: tuple[Node, ...]

    @classmethod
    def read(cls, infer_service: Path, workflow: Path, resource: Path) -> Workdir:
        """Read the three files and those that they name.

        Raises:
            ConfigError: one cannot be read, or they ask for what is not served here.
        """
        service = prototxt.read(infer_service, pb.InferService(), unknown_fields=True)
        names = [name for each in service.services for name in each.workflows]
        workflows = {each.name: each for each in prototxt.read(workflow, pb.Workflows(), unknown_fields=True).workflows}
        if len(names) != 1 or names[0] not in workflows:
            raise ConfigError(f"{infer_service} must name one workflow of {workflow}.")
        engines = _engines(resource)
        nodes = []
        for node in _in_sequence(workflows[names[0]], workflow):
            if node.type not in OPS:
                raise ConfigError(f"There is no op {node.type}; there are {', '.join(OPS)}.")
            if node.type in (READER, RESPONSE):
                continue
            if node.name not in engines:
                raise ConfigError(f"{resource} names no model for {node.name}.")
            nodes.append(Node(node.type, *engines[node.name]))
        return cls(service.port if service.HasField("port") else None, tuple(nodes))


@dataclass(frozen=True)
class Node:
    """An op with a model.

    Attributes:
        op: its type.
        engine: its entry in model_toolkit.prototxt.
        toolkit: that file.
        conf: general_model.prototxt, which declares its inputs and outputs.
    """

    op: str
    engine: pb.ModelToolkit.Engine
    toolkit: Path
    conf: Path

    @property
    def gpu_ids(self) -> str:
        """As --gpu_ids writes them."""
        return ",".join(map(str, self.engine.gpu_ids)) if self.engine.use_gpu else ""

    def step(self, settings: Settings) -> Step:
        """The node as a step of a workflow, with settings for its engine."""
        model = Path(self.engine.model_dir)
        touched = [self.toolkit.parent / TOUCHED, model / TOUCHED]
        if self.engine.reloadable_meta:
            touched.append(Path(self.engine.reloadable_meta))
        return Step(
            self.op,
            model,
            settings,
            self.conf,
            max(0, self.engine.runtime_thread_num),
            max(1, self.engine.batch_infer_size),
            tuple(dict.fromkeys(touched)),
        )


def _engines(resource: Path) -> dict[str, tuple[pb.ModelToolkit.Engine, Path, Path]]:
    """Name of a node -> its engine, and the two files that describe it."""
    listed = prototxt.read(resource, pb.Resource(), unknown_fields=True)
    toolkits = _files(listed.model_toolkit_path, listed.model_toolkit_file)
    confs = _files(listed.general_model_path, listed.general_model_file)
    if len(toolkits) != len(confs):
        raise ConfigError(f"{resource} must name as many general_model_files as model_toolkit_files.")
    return {
        engine.name: (engine, toolkit, conf)
        for toolkit, conf in zip(toolkits, confs, strict=True)
        for engine in prototxt.read(toolkit, pb.ModelToolkit(), unknown_fields=True).engines
    }


def _files(folders: Sequence[str], names: Sequence[str]) -> list[Path]:
    return [Path(folder, name) for folder, name in zip(folders, names, strict=False)]


def _in_sequence(workflow: pb.Workflows.Workflow, file: Path) -> Sequence[pb.Workflows.Node]:
    """The nodes, each of which must depend on the one before and on nothing else."""
    before: list[str] = []
    for node in workflow.nodes:
        if [dependency.name for dependency in node.dependencies] != before:
            raise ConfigError(f"{file}: {node.name} does not follow the op before it; only sequences are served here.")
        before = [node.name]
    return workflow.nodes
