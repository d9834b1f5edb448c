"""Prepares a det model for 8 bits, which take less time on processors without AMX.

python3 -m ocr_serving.calibration MODEL_DIR [IMAGE ...]        writes int8.json into the model folder

Whether texts stay as good is for its user to measure; without int8.json, or with the setting precision = f32, the model
runs in f32.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving import image, model_dir, samples
from ocr_serving.engine import int8_layers, openvino_int8, openvino_package
from ocr_serving.engine.base import normalize
from ocr_serving.engine.openvino import read_graph
from ocr_serving.errors import ConfigError, OcrServingError
from ocr_serving.geometry import Image
from ocr_serving.model_dir import ModelDir
from ocr_serving.reading.map_size import to_map_size
from ocr_serving.settings import Settings


def calibrate(model: ModelDir, pictures: Sequence[Image]) -> Path:
    """Write int8.json into the folder of a det model, as suits these BGR images; the file written.

    Raises:
        ConfigError: it is no det model, OpenVINO cannot read it, or nothing in it can run in 8 bits.
    """
    model.require_det()
    inputs = [_input(model, picture) for picture in pictures]
    layers = openvino_int8.calibrate(read_graph(openvino_package.load().Core(), model), inputs)
    if not layers:
        raise ConfigError(f"The model in {model.path} has no convolution that could run in 8 bits.")
    return int8_layers.write(model, layers)


def drawn_pictures() -> list[Image]:
    """The samples that hold pages and scenes, each as it could have been photographed otherwise."""
    pages = [sample.image for sample in samples.render() if sample.name.startswith("imgs/")]
    return [variant for page in pages for variant in _variants(page)]


def _variants(picture: Image) -> Iterator[Image]:
    height, width = picture.shape[:2]
    yield picture
    yield cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE)
    yield 255 - picture
    flat = np.where(picture > 190, np.uint8(255), picture)  # as pages that never were on paper
    yield flat
    yield cv2.resize(flat, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    yield cv2.convertScaleAbs(picture, alpha=0.45, beta=20)  # in the dark
    noise = np.random.default_rng(5).normal(0, 14, picture.shape)
    yield np.clip(cv2.GaussianBlur(picture, (0, 0), 1.2) + noise, 0, 255).astype(np.uint8)
    yield np.ascontiguousarray(picture[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4])
    yield cv2.applyColorMap(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLORMAP_JET)


def _input(model: ModelDir, picture: Image) -> NDArray[np.float32]:
    assert model.normalization is not None
    return normalize(to_map_size(picture, Settings().det_limit_side)[None], model.normalization)


def _read(path: Path) -> Image:
    try:
        return image.decode(path.read_bytes(), Settings().max_pixels)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except OcrServingError as error:
        raise ConfigError(f"{path}: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, 2 where the message on stderr says what was wrong."""
    parser = argparse.ArgumentParser(prog="python3 -m ocr_serving.calibration", description=__doc__.split("\n")[0])
    parser.add_argument("model", metavar="MODEL_DIR", help="a det model folder")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="*", type=Path, default=[], help="instead of drawn ones: some 20, unlike"
    )
    args = parser.parse_args(argv)
    try:
        written = calibrate(model_dir.load(args.model), [_read(path) for path in args.images] or drawn_pictures())
    except (OcrServingError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
