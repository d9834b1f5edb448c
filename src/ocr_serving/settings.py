"""Every setting, its default and why; read from defaults < TOML file < OCR_* environment < flags."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ocr_serving.errors import ConfigError

PREFIX = "OCR_"
"""Of environment variables that are settings."""

PRECISIONS = {"fp32": "f32", "fp16": "fp16", "bf16": "bf16"}
"""The original's names of the precisions there are here; its int8 needs a model made for it."""

Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One immutable set of settings, handed down from the front door."""

    engine: Literal["auto", "openvino", "paddle", "onnxruntime"] = "auto"
    """Inference engine; auto takes the fastest one that is installed and reads the model folder."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where inference runs."""
    gpu_id: Count = 0
    """Which GPU, with device gpu."""
    precision: Literal["auto", "f32", "bf16", "fp16"] = "auto"
    """Arithmetic of the engine; auto takes bf16 where the CPU computes in it, else f32, for rec partly int8."""
    threads: Count = 0
    """Inference threads of a process; 0 takes the cores that the process may use."""
    det_model: str = "ocr_det_model"
    """Folder of the det model."""
    rec_model: str = "ocr_rec_model"
    """Folder of the rec model."""
    models_dir: str = ""
    """Folder that fetched models are kept in; empty takes models/ of a checkout, else ~/.cache/ocr_serving."""

    host: str = "127.0.0.1"
    """Address the servers listen on; 0.0.0.0 opens them to the network."""
    port: Port = 9292
    """Port of the web service."""
    det_endpoint: str = "127.0.0.1:9293"
    """Where the OCR web service finds the det model server; several, divided by commas, are asked in turn."""
    worker_port: Port = 12000
    """First port tried for a model server that the web service starts for itself."""
    request_timeout: Seconds = 60.0
    """Seconds until a request is answered with 504."""
    drain_seconds: Seconds = 10.0
    """How long accepted requests may take to finish once a web service is told to end."""
    max_running: Count = 0
    """HTTP requests worked on at once; 0 takes two more than the cores that the process may use."""
    max_queued: Count = 64
    """HTTP requests that wait for their turn; more are refused with 503."""
    max_body_bytes: Positive = 64 * 1024 * 1024
    """Largest HTTP request body."""
    max_buffered_bytes: Positive = 1024 * 1024 * 1024
    """HTTP request bodies in memory at once, in all; more are refused with 503."""
    max_pixels: Positive = 60_000_000
    """Largest image, width times height; decoding one takes up to 16 bytes a pixel."""
    max_images: Positive = 64
    """Most images in one request."""
    api_keys: tuple[Annotated[str, Meta(min_length=8)], ...] = ()
    """Keys of which web clients must give one, separated by commas, each of 8 characters or more; none: open to all."""
    public_metrics: bool = True
    """Whether /metrics, /health/ready and /openapi.json ask for no key; /health/live never does."""
    log_format: Literal["text", "json"] = "text"
    """How log lines look."""
    reload_interval: Seconds = 10.0
    """Seconds between two looks of a model server at fluid_time_file of its models; touching it loads a model anew."""

    det_limit_side: Annotated[int, Meta(ge=32, le=8192)] = 960
    """Longest side, in pixels, of the image that det sees; larger ones are shrunk."""
    det_thresh: Fraction = 0.3
    """Probability above which a pixel is text."""
    det_box_thresh: Fraction = 0.5
    """Mean probability under which a box is dropped."""
    det_unclip_ratio: Annotated[float, Meta(ge=0, le=10)] = 1.5
    """How far a box is widened: the offset is area * ratio / perimeter."""
    det_max_boxes: Positive = 3000
    """Most boxes of an image; more are refused with 422."""
    det_min_side: Annotated[float, Meta(ge=0)] = 3.0
    """Boxes with a shorter side, in pixels of the image, are dropped."""
    rec_min_score: Fraction = 0.5
    """OCR lines with a lower score are dropped."""
    rec_squeeze: Annotated[float, Meta(ge=0.5, le=1)] = 0.8
    """Rec's input grows with a line's length to this power: training squeezed long lines, too; 1 squeezes none."""
    rec_doubt_score: Fraction = 0.85
    """Squeezed lines whose letters score less are read again, unsqueezed, and the better reading counts; 0: none."""
    rec_batch: Annotated[int, Meta(ge=1, le=64)] = 8
    """Most crops in one rec batch; on a CPU, batches of long lines are smaller."""

    def replace(self, **changes: Any) -> Settings:
        """A copy with some settings changed.

        Raises:
            ConfigError: an unknown setting or a value it does not take.
        """
        return _build({**msgspec.structs.asdict(self), **changes}, "replace()")

    def environ(self) -> dict[str, str]:
        """The OCR_* variables from which load() makes these settings."""
        texts = {k: ",".join(v) if isinstance(v, tuple) else str(v) for k, v in msgspec.structs.asdict(self).items()}
        return {f"{PREFIX}{name.upper()}": text for name, text in texts.items()}


def load(
    flags: Mapping[str, Any] | None = None, *, file: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Settings from a TOML file (also named by OCR_SETTINGS), the environment and flags, the later ones winning.

    Args:
        flags: setting -> value; values of None are passed over.
        file: a TOML file with settings at its top level.
        environ: variables named OCR_ and the setting's name in capitals.

    Raises:
        ConfigError: an unknown setting, a value it does not take, an unreadable file.
    """
    values: dict[str, Any] = {}
    path = file or (Path(environ["OCR_SETTINGS"]) if environ.get("OCR_SETTINGS") else None)
    if path is not None:
        values = _build_check(_read_toml(path), str(path))
    variables = {
        k[len(PREFIX) :].lower(): v for k, v in environ.items() if k.startswith(PREFIX) and k != "OCR_SETTINGS"
    }
    values |= _build_check(variables, "the environment (OCR_*)")
    values |= _build_check({k: v for k, v in (flags or {}).items() if v is not None}, "the command line")
    return _build(values, "the settings")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give the parser one --flag for every setting and --settings for the TOML file."""
    parser.add_argument("--settings", type=Path, metavar="FILE", help="TOML file with settings")
    for field in msgspec.structs.fields(Settings):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, dest=field.name, metavar="VALUE", help=f"default: {field.default}")


def from_args(args: argparse.Namespace, **fixed: Any) -> Settings:
    """Settings from parsed flags (see add_flags); `fixed` ones win over all."""
    flags = {name: getattr(args, name, None) for name in Settings.__struct_fields__}
    return load({**flags, **fixed}, file=args.settings)


def usable_cores() -> int:
    """Cores this process may really use: affinity, then the cgroup's CPU quota, rounded up; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores)


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {path} is not valid TOML: {error}.") from error


def _build_check(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The values, once each is known to be a setting that takes it; the error names the source."""
    _build(values, source)
    return dict(values)


def _build(values: Mapping[str, Any], source: str) -> Settings:
    for name in values:
        if name not in Settings.__struct_fields__:
            close = difflib.get_close_matches(name, Settings.__struct_fields__, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigError(f"Unknown setting {name} in {source}.{hint}")
    try:
        return msgspec.convert({name: _split(name, value) for name, value in values.items()}, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"A setting in {source} has a value it does not take: {error}.") from error


def _split(name: str, value: Any) -> Any:
    """A list that a flag or a variable gives as text."""
    return [part for part in value.split(",") if part] if name == "api_keys" and isinstance(value, str) else value
