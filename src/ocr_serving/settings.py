"""Every setting, its default and why; read from defaults < TOML file < OCR_* environment < flags."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from ocr_serving.cores import usable_cores
from ocr_serving.errors import ConfigError

PREFIX = "OCR_"
"""Of environment variables that are settings."""

_SERVICE_LINK = re.compile(r"(.+_)?(service_(host|port)(_.+)?|port_\d+_(tcp|udp|sctp)(_(proto|port|addr))?)")
_PORT = re.compile(r"(.+_)?port")
_SERVICE_URLS = ("tcp://", "udp://", "sctp://")
"""Values of what Kubernetes names OCR_PORT, as if it were a setting."""

_PRECISIONS = {"fp32": "f32", "fp16": "fp16", "bf16": "bf16"}
"""The original's names of the precisions there are here; its int8 needs a model made for it."""

GPU_RUNS = 2
"""Batches of lines at once on a GPU: one is handed over while another is computed (docs/performance.md)."""

Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=0)]
Places = Annotated[int, Meta(ge=0, le=1000)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


def _about(sentence: str) -> Meta:
    return Meta(description=sentence)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One immutable set of settings, handed down from the front door; --help prints what each is for."""

    engine: Annotated[
        Literal["auto", "openvino", "paddle", "onnxruntime", "torch"],
        _about("Inference engine; auto takes the fastest one that is installed and reads the model folder."),
    ] = "auto"
    device: Annotated[Literal["cpu", "gpu"], _about("Where inference runs.")] = "cpu"
    gpu_id: Annotated[Count, _about("Which GPU, with device gpu.")] = 0
    precision: Annotated[
        Literal["auto", "f32", "bf16", "fp16"],
        _about(
            "Arithmetic; auto is int8 in parts where the CPU has no AMX, all else bf16 where the engine has it, or "
            "f32, and on a GPU tf32."
        ),
    ] = "auto"
    threads: Annotated[Count, _about("Inference threads of a process; 0 takes the cores that the process may use.")] = 0
    det_model: Annotated[str, _about("Folder of the det model.")] = "ocr_det_model"
    rec_model: Annotated[str, _about("Folder of the rec model.")] = "ocr_rec_model"
    models_dir: Annotated[
        str,
        _about(
            "Where paddle_serving_app.package keeps what it fetched; empty: models/ of a checkout, else "
            "~/.cache/ocr_serving."
        ),
    ] = ""

    host: Annotated[str, _about("Address the servers listen on; 0.0.0.0 opens them to the network.")] = "127.0.0.1"
    port: Annotated[Port, _about("Port of the web service.")] = 9292
    det_endpoint: Annotated[
        str,
        _about("Where the OCR web service finds the det model server; several, divided by commas, are asked in turn."),
    ] = "127.0.0.1:9293"
    worker_port: Annotated[
        Port, _about("First port tried for a model server that the web service starts for itself.")
    ] = 12000
    request_timeout: Annotated[Seconds, _about("Seconds until a request is answered with 504.")] = 60.0
    drain_seconds: Annotated[
        Seconds, _about("How long accepted requests may take to finish once a web service is told to end.")
    ] = 10.0
    max_running: Annotated[
        Places, _about("HTTP requests worked on at once; 0 takes two more than the cores that the process may use.")
    ] = 0
    max_queued: Annotated[Places, _about("HTTP requests that wait for their turn; more are refused with 503.")] = 64
    max_body_bytes: Annotated[Positive, _about("Largest HTTP request body.")] = 64 * 1024 * 1024
    max_buffered_bytes: Annotated[
        Positive, _about("HTTP request bodies in memory at once, in all; more are refused with 503.")
    ] = 1024 * 1024 * 1024
    max_pixels: Annotated[
        Positive, _about("Largest image, width times height; decoding one takes up to 24 bytes a pixel.")
    ] = 60_000_000
    max_images: Annotated[Positive, _about("Most images in one request.")] = 64
    api_keys: Annotated[
        tuple[Annotated[str, Meta(min_length=8)], ...],
        _about(
            "Keys of 8 characters or more, divided by commas, of which web clients must give one; none: open to all."
        ),
    ] = ()
    public_metrics: Annotated[
        bool, _about("Whether /metrics, /health/ready and /openapi.json ask for no key; /health/live never does.")
    ] = True
    log_format: Annotated[Literal["text", "json"], _about("How log lines look.")] = "text"
    reload_interval: Annotated[
        Seconds,
        _about(
            "Seconds between two looks of a model server that you start at fluid_time_file, which loads models anew."
        ),
    ] = 10.0

    det_limit_side: Annotated[
        int,
        Meta(ge=32, le=8192),
        _about("Longest side, in pixels, of the image that det sees; larger ones are shrunk."),
    ] = 960
    det_enlarge: Annotated[
        float, Meta(ge=1, le=8), _about("Smaller images are enlarged to that, at most so many times; 1: never.")
    ] = 2.0
    det_small_text: Annotated[
        float,
        Meta(ge=0, le=100),
        _about(
            "Where a quarter of the boxes are lower than this, in pixels as det sees them, or an image of twice the "
            "size has none, det looks again at twice the size; 0: never."
        ),
    ] = 10.0
    det_thresh: Annotated[Fraction, _about("Probability above which a pixel is text.")] = 0.3
    det_box_thresh: Annotated[Fraction, _about("Mean probability under which a box is dropped.")] = 0.5
    det_unclip_ratio: Annotated[
        float, Meta(ge=0, le=10), _about("How far a box is widened: the offset is area * ratio / perimeter.")
    ] = 1.5
    det_max_boxes: Annotated[Positive, _about("Most boxes of an image; more are refused with 422.")] = 3000
    det_min_side: Annotated[
        float, Meta(ge=0), _about("Boxes with a shorter side, in pixels of the image, are dropped.")
    ] = 3.0
    rec_min_score: Annotated[Fraction, _about("OCR lines with a lower score are dropped.")] = 0.5
    rec_squeeze: Annotated[
        float,
        Meta(ge=0.5, le=1),
        _about(
            "Rec's input grows with a line's length to this power: training squeezed long lines, too; 1 squeezes none."
        ),
    ] = 0.8
    rec_doubt_score: Annotated[
        Fraction,
        _about(
            "Squeezed lines whose letters score less are read again, unsqueezed; the better reading counts; 0: none."
        ),
    ] = 0.85
    rec_batch: Annotated[
        int, Meta(ge=1, le=64), _about("Most crops in one rec batch; on a CPU, batches of long lines are smaller.")
    ] = 8

    @property
    def inference_threads(self) -> int:
        """`threads`, or the cores that the process may use."""
        return self.threads or usable_cores()

    @property
    def rec_runs(self) -> int:
        """Batches of lines that are computed at once: one on each core, or GPU_RUNS."""
        return GPU_RUNS if self.device == "gpu" else self.inference_threads

    def replace(self, **changes: Any) -> Settings:
        """A copy with some settings changed.

        Raises:
            ConfigError: an unknown setting or a value it does not take.
        """
        return msgspec.structs.replace(self, **_checked(changes, "replace()"))

    def environ(self) -> dict[str, str]:
        """The OCR_* variables from which load() makes these settings."""
        texts = {k: ",".join(v) if isinstance(v, tuple) else str(v) for k, v in msgspec.structs.asdict(self).items()}
        return {f"{PREFIX}{name.upper()}": text for name, text in texts.items()}


def precision_named(name: str | None, say: Callable[[str], object]) -> str | None:
    """The setting for one of the original's names of a precision; None where there is none, which is said."""
    if name is not None and name not in _PRECISIONS:
        say(f"precision {name}: no effect here; there are {', '.join(_PRECISIONS)}.")
    return _PRECISIONS.get(name or "")


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
        values = _checked(_read_toml(path), str(path))
    values |= _checked(_variables(environ), "the environment (OCR_*)")
    values |= _checked({k: v for k, v in (flags or {}).items() if v is not None}, "the command line")
    return Settings(**values)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give the parser one --flag for every setting and --settings for the TOML file."""
    parser.add_argument("--settings", type=Path, metavar="FILE", help="TOML file with settings")
    defaults = msgspec.structs.asdict(Settings())
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        *_, about = hint.__metadata__
        default = {"": "empty", (): "none"}.get(defaults[name], defaults[name])
        sentence = f"{about.description} Default: {default}."
        kind = hint.__origin__
        choices = "|".join(get_args(kind)) if get_origin(kind) is Literal else "VALUE"
        parser.add_argument("--" + name.replace("_", "-"), dest=name, metavar=choices, help=sentence)
        if "_" in name:  # as it is spelled in files
            parser.add_argument(f"--{name}", dest=name, help=argparse.SUPPRESS, default=argparse.SUPPRESS)


def from_args(args: argparse.Namespace, **fixed: Any) -> Settings:
    """Settings from parsed flags (see add_flags); `fixed` ones win over all."""
    flags = {name: getattr(args, name, None) for name in Settings.__struct_fields__}
    return load({**flags, **fixed}, file=args.settings)


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings among variables, without what Kubernetes sets for services whose names begin with "ocr"."""
    names = {k: k.removeprefix(PREFIX).lower() for k in environ if k.startswith(PREFIX) and k != "OCR_SETTINGS"}
    return {
        name: environ[k]
        for k, name in names.items()
        if not _SERVICE_LINK.fullmatch(name) and not (_PORT.fullmatch(name) and environ[k].startswith(_SERVICE_URLS))
    }


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {path} is not valid TOML: {error}.") from error


def _checked(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The values as the settings take them; the error names the source."""
    hints = get_type_hints(Settings, include_extras=True) if values else {}
    checked = {}
    for name, value in values.items():
        if name not in hints:
            close = difflib.get_close_matches(name, hints, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigError(f"Unknown setting {name} in {source}.{hint}")
        try:
            checked[name] = msgspec.convert(_read(name, hints[name], value), hints[name], strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{name} in {source} must be {_accepted(hints[name])}.") from error
    return checked


def _accepted(hint: Any) -> str:
    """What a setting takes, in words."""
    kind, *metas = get_args(hint)
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        return f"{', '.join(others)} or {last}"
    if get_origin(kind) is tuple:
        return "texts of 8 characters or more, divided by commas"
    bounds = [
        f"{word} {getattr(meta, key)}"
        for key, word in (("ge", "from"), ("gt", "above"), ("le", "up to"))
        for meta in metas
        if getattr(meta, key) is not None
    ]
    what = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
    return " ".join([what, *bounds])


def _read(name: str, hint: Any, value: Any) -> Any:
    """The value of a flag or a variable, which is text, as far as msgspec does not read it: API keys, and ".5"."""
    if name == "api_keys":
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        return [p.strip() if isinstance(p, str) else p for p in parts] if isinstance(parts, list) else parts
    if isinstance(value, str) and get_args(hint)[0] is float:
        with suppress(ValueError):
            return float(value)
    return value
