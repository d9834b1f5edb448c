"""What a client knows of the model it calls: serving_client_conf.prototxt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ocr_serving import model_dir
from ocr_serving.compat import numpy_bytes
from ocr_serving.compat.feeds import BadCall
from ocr_serving.errors import ConfigError
from ocr_serving.model_dir import Variable


@dataclass(frozen=True)
class ClientConfig:
    """The inputs and outputs of a model, or of the first and the last model of a chain.

    Attributes:
        feeds: inputs.
        fetches: outputs.
        is_chain: whether there are several models.
    """

    feeds: tuple[Variable, ...]
    fetches: tuple[Variable, ...]
    is_chain: bool = False

    @classmethod
    def load(cls, paths: str | Sequence[str]) -> ClientConfig:
        """Read the inputs of the first configuration and the outputs of the last.

        Args:
            paths: one or several prototxt files, or folders that hold serving_client_conf.prototxt.

        Raises:
            ConfigError: none is given, or one cannot be read.
        """
        files = [_file(Path(path)) for path in ([paths] if isinstance(paths, str) else paths)]
        if not files:
            raise ConfigError("load_client_config takes a prototxt file or a folder with one, or a list of them.")
        return cls(model_dir.read_conf(files[0])[0], model_dir.read_conf(files[-1])[1], len(files) > 1)

    def known_fetches(self, fetch: str | Sequence[str] | None) -> list[str]:
        """The names that are outputs, in the caller's order; the others are passed over, as the original did.

        Derived outputs (model_dir.DERIVED), and those of det and rec chained (PAGE), need no declaration: our servers
        have them.

        Raises:
            BadCall: no name, list of names or None.
        """
        if fetch is None:
            return []
        if not isinstance(fetch, (str, list, tuple)):
            raise BadCall("Fetch only accepts string or list of string")
        known = {*model_dir.DERIVED, *(variable.alias for variable in self.fetches)}
        known |= set(model_dir.PAGE if self.is_chain else ())
        return [name for name in ([fetch] if isinstance(fetch, str) else fetch) if name in known]


class ConfiguredClient:
    """What the clients have in common: the configuration of the model they call."""

    _config: ClientConfig | None = None

    def load_client_config(self, model_config_path_list: str | Sequence[str]) -> None:
        """Read what the model takes and gives: see ClientConfig.load."""
        numpy_bytes.restore_fromstring()
        self._config = ClientConfig.load(model_config_path_list)

    def get_feed_names(self) -> list[str]:
        """The aliases of the inputs."""
        return [variable.alias for variable in self._loaded().feeds]

    def get_fetch_names(self) -> list[str]:
        """The aliases of the outputs."""
        return [variable.alias for variable in self._loaded().fetches]

    def use_key(self, key_filename: str) -> None:
        """Refuse: encrypted models are not offered."""
        raise encryption_refused()

    def _loaded(self) -> ClientConfig:
        if self._config is None:
            raise ConfigError("load_client_config must be called first.")
        return self._config


def encryption_refused() -> ConfigError:
    """For whoever asks for encrypted models."""
    return ConfigError("Encrypted models are not offered; serve the model as it is, on a network you trust.")


def _file(path: Path) -> Path:
    return path / model_dir.CLIENT_CONF if path.is_dir() else path
