"""A serving model folder: what it must hold, read and checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ocr_serving import paddlex_conf, prototxt
from ocr_serving.errors import ConfigError
from ocr_serving.paddlex_conf import PaddlexConf
from ocr_serving.wire.general_model_config_pb2 import GeneralModelConfig

SERVER_CONF = "serving_server_conf.prototxt"
CLIENT_CONF = "serving_client_conf.prototxt"
PADDLEX_CONF = "inference.yml"
INT8_LAYERS = "int8.json"
"""How a det model runs in 8 bits; optional. See engine/int8_layers.py."""

INPUT = "x"
"""What the OCR example calls a model's image."""
ORIGINAL_OUTPUT = "save_infer_model/scale_0.tmp_1"
"""What the original's clients fetch, whatever the graph calls its output."""
CTC_INDEX = "ctc_index"
"""Compact rec output: int32 (n, t), the best class of each time step."""
CTC_SCORE = "ctc_score"
"""Compact rec output: float32 (n, t), the probability of that class."""
DET_LOGITS = "det_logits"
"""Cheap det output: float32 (n, 1, h, w), the map before its sigmoid."""
DERIVED = (CTC_INDEX, CTC_SCORE, DET_LOGITS)
"""Outputs that every engine makes for a det or rec model; returned only when fetched by name."""
PAGE_TEXTS, PAGE_BOXES, PAGE_SCORES = PAGE = ("res", "dt_boxes", "scores")
"""Outputs of det and rec chained in one server besides those of rec; returned only when fetched by name."""

GRAPHS = ("*.onnx", "*.pdmodel", "inference.json", "__model__")
PARAMS = ("*.pdiparams", "__params__")
"""Files of a model and, if it is Paddle's, of its parameters, the preferred ones first; the last ones are what Paddle
called them before 2.0, as in many a folder made for 0.9."""

DET_STRIDE = 32
"""A det model halves its input five times, so both sides are multiples of this."""
FLOAT32, INT32 = 1, 2
"""Paddle Serving's numbers of element types."""


@dataclass(frozen=True)
class Variable:
    """An input or output as serving_server_conf.prototxt declares it.

    Attributes:
        name: what the original's graph called it.
        alias: what feeds and fetches call it.
        elem_type: Paddle Serving's number of the element type (1 is float32).
        shape: dimensions without the batch; dynamic ones may be missing.
        is_lod: whether it carries level-of-detail offsets.
    """

    name: str
    alias: str
    elem_type: int
    shape: tuple[int, ...]
    is_lod: bool = False


@dataclass(frozen=True)
class Normalization:
    """How a uint8 BGR image becomes the model's input: (pixel * scale - mean) / std, per channel in BGR order.

    Attributes:
        scale: factor on a pixel, usually 1/255.
        mean, std: float32 (3,).
    """

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


REC_NORMALIZATION = Normalization(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Of rec models whose inference.yml says nothing else, as in the original."""


@dataclass(frozen=True)
class ModelDir:
    """A model folder that has been read and checked.

    Attributes:
        path: the folder.
        model_file: inference.onnx, *.pdmodel, PIR *.json or __model__.
        params_file: *.pdiparams or __params__ of a Paddle model, None for ONNX.
        feeds: inputs, as declared.
        fetches: outputs, as declared, and the derived ones of a det or rec model, which need no declaration.
        normalization: for uint8 images, None where inference.yml has none.
        characters: index -> text of a CTC model, the blank (index 0) and the final space included; empty for det.
        image_height: input height of a rec model in pixels, None for det.
    """

    path: Path
    model_file: Path
    params_file: Path | None
    feeds: tuple[Variable, ...]
    fetches: tuple[Variable, ...]
    normalization: Normalization | None
    characters: tuple[str, ...]
    image_height: int | None

    @property
    def name(self) -> str:
        """The folder's own name, for messages and metrics."""
        return self.path.absolute().name

    @property
    def format(self) -> str:
        """ "onnx" or "paddle"."""
        return "onnx" if self.params_file is None else "paddle"

    @property
    def graph_fetches(self) -> tuple[Variable, ...]:
        """The outputs of the graph itself, in its order."""
        return tuple(v for v in self.fetches if v.alias not in DERIVED)

    @property
    def derived(self) -> tuple[str, ...]:
        """The outputs that an engine makes from the graph's first."""
        return tuple(v.alias for v in self.fetches if v.alias in DERIVED)

    def require_det(self) -> None:
        """Raise ConfigError if this is no det model that images can be given to."""
        if DET_LOGITS not in self.derived or self.normalization is None:
            raise ConfigError(f"Model folder {self.path} is no det model: {self._lacks('DBPostProcess')}")

    def require_rec(self) -> int:
        """The input height of a rec model in pixels.

        Raises:
            ConfigError: this is none.
        """
        if self.image_height is None or not self.characters:
            raise ConfigError(f"Model folder {self.path} is no rec model: {self._lacks('a dictionary')}")
        return self.image_height

    def _lacks(self, what: str) -> str:
        return f'it has no {PADDLEX_CONF} with {what} (docs/operations.md, "Models of your own", shows one).'


def load(path: str | Path, conf: Path | None = None) -> ModelDir:
    """Read a model folder.

    Args:
        path: the folder.
        conf: declares inputs and outputs in place of the folder's SERVER_CONF.

    Raises:
        ConfigError: the folder or a file in it is missing or damaged, or may not be read; the message says which, and
            how to get it.
    """
    folder = Path(path)
    try:
        return _load(folder, conf)
    except OSError as error:
        raise ConfigError(f"Model folder {folder} cannot be read: {error.strerror}.") from error


def _load(folder: Path, conf: Path | None) -> ModelDir:
    if not folder.is_dir():
        if folder.exists():
            raise ConfigError(f"Model folder {folder} is a file; unpack it: tar -xzf {folder}")
        stem = folder.name.removesuffix("_model")
        name = stem if stem.startswith(("ocr_", "ppocr")) else "NAME"
        raise ConfigError(
            f"Model folder {folder} does not exist; get one with: python3 -m paddle_serving_app.package "
            f"--get_model {name} && tar -xzf {name}.tar.gz (--list_model says which there are)"
        )
    if conf is None and not (folder / SERVER_CONF).exists():
        raise ConfigError(
            f"{folder} is no serving folder, as it has no {SERVER_CONF}; make one of a Paddle or ONNX model with: "
            f"python3 -m paddle_serving_client.convert --dirname {folder} --serving_server NEW_FOLDER"
        )
    feeds, fetches = read_conf(conf or folder / SERVER_CONF)
    model_file, params_file = _model_files(folder)
    paddlex = paddlex_conf.read(folder / PADDLEX_CONF)
    return ModelDir(
        path=folder,
        model_file=model_file,
        params_file=params_file,
        feeds=feeds,
        fetches=(*(v for v in fetches if v.alias not in DERIVED), *_derived(paddlex)),
        normalization=_normalization(paddlex),
        # Blank first and space last, as PaddleOCR's CTCLabelDecode builds its table.
        characters=("", *paddlex.dictionary, " ") if paddlex.dictionary else (),
        image_height=paddlex.rec_resize.image_shape[1] if paddlex.rec_resize else None,
    )


def read_conf(path: Path) -> tuple[tuple[Variable, ...], tuple[Variable, ...]]:
    """The (feeds, fetches) of a serving_{server,client}_conf.prototxt.

    Raises:
        ConfigError: the file is missing or is not such a file.
    """
    conf = prototxt.read(path, GeneralModelConfig())
    if not conf.feed_var or not conf.fetch_var:
        raise ConfigError(f"{path} is damaged: it needs at least one feed_var and one fetch_var.")
    feeds = tuple(Variable(v.name, v.alias_name, v.feed_type, tuple(v.shape), v.is_lod_tensor) for v in conf.feed_var)
    fetches = tuple(
        Variable(v.name, v.alias_name, v.fetch_type, tuple(v.shape), v.is_lod_tensor) for v in conf.fetch_var
    )
    return feeds, fetches


def files_like(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of a folder that fit a pattern: those of the first one sorted by name, then those of the next one."""
    return [file for pattern in patterns for file in sorted(folder.glob(pattern))]


def _model_files(folder: Path) -> tuple[Path, Path | None]:
    graphs, params = files_like(folder, GRAPHS), files_like(folder, PARAMS)
    if graphs and graphs[0].suffix == ".onnx":
        return graphs[0], None
    if not graphs or not params:
        raise ConfigError(
            f"Model folder {folder} holds no model: it needs inference.onnx, or inference.pdmodel (or inference.json) "
            "with inference.pdiparams, or __model__ with __params__."
        )
    return graphs[0], params[0]


def _normalization(conf: PaddlexConf) -> Normalization | None:
    if conf.normalize is not None:
        scale = 1 / 255 if isinstance(conf.normalize.scale, str) else conf.normalize.scale
        return Normalization(scale, _triple(conf.normalize.mean), _triple(conf.normalize.std))
    if conf.rec_resize is not None:
        return REC_NORMALIZATION
    return None


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    blue, green, red = (float(np.float32(v)) for v in values)
    return blue, green, red


def _derived(conf: PaddlexConf) -> tuple[Variable, ...]:
    if conf.dictionary:
        return Variable(CTC_INDEX, CTC_INDEX, INT32, ()), Variable(CTC_SCORE, CTC_SCORE, FLOAT32, ())
    if conf.post_process == "DBPostProcess":
        return (Variable(DET_LOGITS, DET_LOGITS, FLOAT32, ()),)
    return ()
