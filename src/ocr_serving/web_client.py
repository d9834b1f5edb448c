"""The HTTP clients: files in, answers printed, pictures of the results if asked for."""

from __future__ import annotations

import argparse
import base64
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from tqdm import tqdm
from urllib3.exceptions import LocationParseError

from ocr_serving import command_line, draw, endpoint, image
from ocr_serving.errors import (
    BadUpstream,
    ConfigError,
    DeadlineExceeded,
    OcrServingError,
    Unauthenticated,
    UpstreamUnavailable,
)

URL = "http://127.0.0.1:9292/ocr/prediction"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm", ".jp2", ".avif")
"""What counts as an image in a folder; files named one by one are sent whatever they are called."""


@dataclass(frozen=True)
class Kind:
    """How a client differs from its sibling.

    Attributes:
        folder: where it takes images when none are named.
        at_once: most images in one request; the services take 64 unless set otherwise.
        server: the service it talks to.
    """

    folder: str
    at_once: int
    server: str


KINDS = {"ocr": Kind("imgs", 1, "ocr_web_server.py"), "rec": Kind("rec_img", 64, "rec_web_server.py")}
_FOR_ALL: dict[int, type[OcrServingError]] = {401: Unauthenticated, 404: ConfigError, 405: ConfigError}
"""What a status means that every further request would be answered with, too."""
_PATIENCE = 120.0
"""Seconds to wait for an answer."""
_PLACE = re.compile(r"^feed\[\d+\]\.x: ")
"""Where in the request a refused image stood, which the user does not see."""


@dataclass(frozen=True)
class Output:
    """What becomes of answers.

    Attributes:
        as_text: whether lines of text are printed, and not answers as the original's clients print them.
        titled: whether the file's name is printed before its lines.
        pictures: folder for pictures of the results, if they are asked for.
    """

    as_text: bool
    titled: bool
    pictures: Path | None


class WebClient:
    """Talks to one web service over one kept connection."""

    def __init__(self, url: str = URL, key: str | None = None) -> None:
        """
        Args:
            url: of the service's prediction path.
            key: the API key, if the service asks for one.
        """
        self._url = url
        self._proxies = endpoint.proxies(url)
        self._session = requests.Session()
        if key is not None:
            self._session.headers["Authorization"] = f"Bearer {key.strip()}".encode()

    def predict(self, files: Sequence[bytes], fetch: Sequence[str] = ("res",)) -> dict[str, Any]:
        """The service's answer, {"result": ...}, to image files in one request.

        Raises:
            UpstreamUnavailable: no server answers.
            ConfigError: the URL has another path than the service, its certificate is not trusted, or the key is none.
            Unauthenticated: it asks for a key, or for another one.
            DeadlineExceeded: the answer took too long.
            OcrServingError: the server refused or failed; the message is its own.
            BadUpstream: the answer is not a web service's, or cut off.
        """
        body = {"feed": [{"x": base64.b64encode(file).decode("ascii")} for file in files], "fetch": list(fetch)}
        try:
            reply = self._session.post(self._url, json=body, timeout=_PATIENCE, proxies=self._proxies)
        except requests.exceptions.SSLError as error:
            raise ConfigError(endpoint.no_tls(self._url)) from error
        except requests.ReadTimeout as error:
            raise DeadlineExceeded(f"{self._url} did not answer within {_PATIENCE:.0f} s.") from error
        except requests.exceptions.InvalidHeader as error:
            raise ConfigError("The API key holds a line break, so it is none.") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise UpstreamUnavailable(f"No server answers at {self._url}.") from error
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
            raise BadUpstream(f"The answer of {self._url} is cut off or damaged.") from error
        try:
            answer = reply.json()
        except requests.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict) or not answer.keys() & {"result", "error"}:
            raise BadUpstream(f"What answers at {self._url} is no OCR service (status {reply.status_code}).")
        if "error" in answer:
            fault = answer["error"]  # an object; Paddle's own gateway says it in a string
            message = str(fault.get("message", fault) if isinstance(fault, dict) else fault)
            raise _FOR_ALL.get(reply.status_code, OcrServingError)(message)
        return answer


def main(kind: str, argv: Sequence[str] | None = None) -> int:
    """Run a client; `kind` is "ocr" or "rec".

    Returns:
        The exit status: 0, 1 if no server answers, an image is refused or cannot be read, or nobody reads the answers,
        2 for wrong arguments.
    """
    this = KINDS[kind]
    args = _parser(this).parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # Chinese, where the terminal's encoding has none
    try:
        files = image_files([Path(path) for path in args.paths or [this.folder]])
        if args.out is not None:
            _check_pictures(files, args.out)
        output = Output(args.text, len(files) > 1, args.out)
        return _send_all(WebClient(args.url, key=args.key), files, this, output)
    except (InvalidURL, InvalidSchema, MissingSchema, LocationParseError):
        return _fail(f"{args.url} is no URL of a web service; one looks like {URL}", 2)
    except ConfigError as error:
        return _fail(str(error), 2)
    except Unauthenticated as error:
        return _fail(str(error) if args.key else f"{error} Here: --key KEY.", 2)
    except UpstreamUnavailable as error:
        is_here = endpoint.is_loopback(urlsplit(args.url).hostname or "")
        return _fail(f"{error} Start one with: python3 {this.server} cpu" if is_here else str(error), 1)
    except BrokenPipeError:  # who reads the answers has enough of them
        command_line.drop_output()
        return 1
    except KeyboardInterrupt:
        return 130


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and the images in the folders named, sorted by name.

    Raises:
        ConfigError: a path does not exist or cannot be read, or a folder holds no image.
    """
    files: list[Path] = []
    for path in paths:
        try:
            if path.is_dir():
                files += _images_in(path)
            elif path.is_file():
                files.append(path)
            else:
                raise ConfigError(f"{path} does not exist.")
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    return files


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name; on stderr, how many other files it has, of which some may be images too.

    Raises:
        ConfigError: it holds no image.
    """
    seen = sorted(folder.iterdir())
    images = [file for file in seen if file.suffix.lower() in SUFFIXES]
    if not images:
        raise ConfigError(f"Folder {folder} holds no image; what counts as one: {', '.join(SUFFIXES)}.")
    others = [
        file
        for file in seen
        if file.suffix.lower() not in SUFFIXES and file.is_file() and not file.name.startswith(".")
    ]
    if others:
        kinds = ", ".join(sorted({file.suffix or file.name for file in others}))
        sys.stderr.write(f"{folder}: left out {len(others)} files ({kinds}).\n")
    return images


def _send_all(client: WebClient, files: list[Path], kind: Kind, output: Output) -> int:
    """Send the files and print what is answered; 1 if one was refused or cannot be read."""
    status = 0
    with tqdm(total=len(files), unit="image", disable=len(files) == 1 or not sys.stderr.isatty()) as bar:
        for start in range(0, len(files), kind.at_once):
            group = files[start : start + kind.at_once]
            contents = _read(group)
            status = 1 if len(contents) < len(group) else status
            try:
                if contents and not _send(client, contents, kind, output):
                    status = 1
            except (UpstreamUnavailable, Unauthenticated, ConfigError):
                raise
            except OcrServingError as error:
                _say_refused([file for file, _ in contents], str(error))
                status = 1
            bar.update(len(group))
    return status


def _read(files: Sequence[Path]) -> list[tuple[Path, bytes]]:
    """The files with their contents; those that cannot be read are named on stderr and left out."""
    contents = []
    for file in files:
        try:
            contents.append((file, file.read_bytes()))
        except OSError as error:
            tqdm.write(f"{file} cannot be read: {error.strerror}.", file=sys.stderr)
    return contents


def _send(client: WebClient, contents: Sequence[tuple[Path, bytes]], kind: Kind, output: Output) -> bool:
    """Send files in one request, print the answer, and save pictures if they are asked for; False if one is refused."""
    fetch = ["res"] if output.pictures is None or kind.at_once > 1 else ["res", "dt_boxes"]
    answer = client.predict([content for _, content in contents], fetch)
    result, files = answer["result"], [file for file, _ in contents]
    if not output.as_text:
        tqdm.write(str(answer), file=sys.stdout)
    else:
        for file, lines in zip(files, _lines(result, kind), strict=True):
            tqdm.write("\n".join([f"== {file} =="] * output.titled + lines), file=sys.stdout)
    faults = result.get("errors", []) if isinstance(result, dict) else []
    if output.pictures is not None:
        _save_pictures(result, contents, {fault.get("index") for fault in faults}, output.pictures)
    for fault in faults:  # of an image, or of a box of the only one
        _say_refused([files[fault.get("index", 0)]], fault["message"])
    return not faults


def _lines(result: Any, kind: Kind) -> list[list[str]]:
    """The lines of text of each file of a request."""
    if not isinstance(result, dict) or "res" not in result:
        raise BadUpstream("The answer holds no texts.")
    return [result["res"]] if kind.at_once == 1 else [[line] for line in result["res"]]


def _say_refused(files: Sequence[Path], message: str) -> None:
    tqdm.write(f"{', '.join(map(str, files))}: {_PLACE.sub('', message)}", file=sys.stderr)


def _check_pictures(files: Sequence[Path], out: Path) -> None:
    """Make the folder for the pictures; ConfigError if it cannot be, or if two files would have one picture."""
    names = [file.name for file in files]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Several files are named {name}; send them one folder at a time with --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"Folder {out} cannot be made: {error.strerror}.") from error


def _save_pictures(result: Any, contents: Sequence[tuple[Path, bytes]], failed: set[int], out: Path) -> None:
    """Draw the result of one request, but for images that failed; with boxes it is one page, else a list of lines."""
    if not isinstance(result, dict) or not result.keys() & {"res", "dt_boxes"}:
        raise BadUpstream("The answer holds nothing to draw.")
    for index, (file, content) in enumerate(contents):
        if index in failed:
            continue
        picture = image.decode(content, sys.maxsize)  # the server has read it
        if "dt_boxes" in result:
            quads = np.array(result["dt_boxes"], np.float32).reshape(-1, 4, 2)
            picture = draw.page(picture, quads, result.get("res", [""] * len(quads)))
        else:
            picture = draw.line(picture, result["res"][index])
        _, png = cv2.imencode(".png", picture)
        path = out / f"{file.name}.png"
        try:
            path.write_bytes(png.tobytes())
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def _parser(kind: Kind) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Send images to {kind.server} and print what it answers.")
    parser.add_argument("paths", nargs="*", help=f"image files, or folders of images (default: {kind.folder}/)")
    parser.add_argument("--url", default=URL, help="default: %(default)s")
    parser.add_argument("--key", help="API key, if the service asks for one")
    parser.add_argument("--text", action="store_true", help="print the lines of text alone")
    parser.add_argument("--out", type=Path, metavar="DIR", help="save pictures of the results in this folder")
    return parser


def _fail(message: str, status: int) -> int:
    sys.stderr.write(message + "\n")
    return status
