"""Clients of Paddle Serving's old interface, set up as its users do: from the files of a configuration."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rpc_peers import FEEDS, FETCHES

from ocr_serving import model_writer
from ocr_serving.model_dir import Variable
from paddle_serving_client.client import Client

IMAGE = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
SMALL = np.arange(6).reshape(2, 3)
IDS = np.array([1, -2, 3, 1 << 40])

CONFIGS = {
    "f32": ([Variable("x", "image", 1, (3, 2, 4))], [Variable("save_infer_model/scale_0.tmp_0", "out", 1, (3,))]),
    "i64": ([Variable("ids", "words", 0, (4,))], [Variable("s0", "out", 0, (3,))]),
    "i32": ([Variable("n", "num", 2, (4,))], [Variable("s0", "out", 2, (3,))]),
    "u8": ([Variable("u", "img8", 7, (2, 3))], [Variable("s0", "out", 7, (3,))]),
    "i8": ([Variable("u", "img8", 8, (2, 3))], [Variable("s0", "out", 8, (3,))]),
    "f16": ([Variable("h", "half", 5, (2, 3))], [Variable("s0", "out", 5, (3,))]),
    "str": ([Variable("x", "image", 20, (1,))], [Variable("s0", "out", 1, (3,))]),
    "lod": ([Variable("ids", "words", 0, (1,), is_lod=True)], [Variable("s0", "out", 1, (3,))]),
    "multi": (
        [
            Variable("x", "image", 1, (2,)),
            Variable("im_shape", "im_shape", 1, (2,)),
            Variable("n", "num", 2, (1,)),
            Variable("ids", "words", 0, (3,)),
        ],
        [Variable("s0", "o1", 1, (3,)), Variable("s1", "o2", 0, (3,), is_lod=True)],
    ),
    "doubler": (FEEDS, FETCHES[:1]),
}
"""The captures' own configurations, and some more."""


class Clients:
    """Makes clients of CONFIGS, whose files it writes into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Client] = []

    def __call__(self, config: str | Sequence[str], addresses: Sequence[str] | None = None, **options: bool) -> Client:
        """A client of one configuration or several, connected to the addresses, if any."""
        names = [config] if isinstance(config, str) else config
        for name in names:
            (self._folder / name).mkdir(exist_ok=True)
            model_writer.write_conf(self._folder / name / "serving_client_conf.prototxt", *CONFIGS[name])
        made = Client(**options)
        made.load_client_config([str(self._folder / name) for name in names])
        if addresses is not None:
            made.connect(addresses)
        self._made.append(made)
        return made

    def close(self) -> None:
        for made in self._made:
            made.release()
