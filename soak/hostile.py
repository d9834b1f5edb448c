"""H: everything hostile at once, and what of it is used elsewhere."""

from __future__ import annotations

import random
import struct
import threading
import zlib
from collections.abc import Mapping

import image_files

from soak import client
from soak.client import HEAD, Reply
from soak.scenario import Context, Finding, Scenario, counts

FRAMES: Mapping[str, bytes] = {
    "CL and TE": HEAD
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health/live HTTP/1.1\r\n\r\n",
    "two CL": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "negative CL": HEAD + b"Content-Length: -1\r\n\r\n",
    "CL no number": HEAD + b"Content-Length: 0x10\r\n\r\n",
    "CL plus": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "huge header": b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "negative chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "TE twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "TE identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "TE in 1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": HEAD + b"Content-Length : 2\r\n\r\n{}",
    "folded header": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/3.7": b"GET / HTTP/3.7\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "NUL in the path": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes": bytes(range(128, 256)) * 4 + b"\r\n\r\n",
}
"""Name -> bytes that an HTTP server must refuse or cut off."""


def files() -> dict[str, bytes]:
    """Name -> a file that is no image, or half of one, or says that it is huge."""
    noise = random.Random(1)
    png, jpeg = image_files.files()["png rgb"], image_files.files()["jpeg"]
    found = {
        "nothing": b"",
        "a byte": b"\0",
        "random": noise.randbytes(5000),
        "HTML": b"<!doctype html><html><body>no</body></html>",
        "zip": b"PK\x03\x04" + noise.randbytes(300),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "EXR": b"\x76\x2f\x31\x01\x02\0\0\0" + noise.randbytes(300),
        "PDF": b"%PDF-1.7\n" + noise.randbytes(300),
        "wrong magic": b"\x89PNG\r\n\x1a\n" + jpeg,
    }
    for name in ("png rgb", "jpeg", "gif", "bmp", "tiff", "webp", "avif", "jp2"):
        data = image_files.files()[name]
        found |= {f"{name}, {part}/16": data[: len(data) * part // 16] for part in range(1, 16)}
        flipped = bytearray(data)
        for _ in range(20):
            flipped[noise.randrange(20, len(flipped))] ^= 1 << noise.randrange(8)
        found[f"{name}, damaged"] = bytes(flipped)
    found |= bombs()
    found["png, checksum wrong"] = png[:29] + b"\0\0\0\0" + png[33:]
    return found


def bombs() -> dict[str, bytes]:
    """Name -> a small file whose header asks for a large picture, or for one in tiny parts."""
    rows = zlib.compress(bytes(8000 * 1001), 9)
    header = struct.pack(">IIBBBBB", 8000, 8000, 1, 0, 0, 0, 0)
    chunks = (
        image_files.png_chunk(b"IHDR", header),
        image_files.png_chunk(b"IDAT", rows),
        image_files.png_chunk(b"IEND", b""),
    )
    side = 30_000
    tags = ((256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, side * side))
    tiff = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    frame = struct.pack(">BHHBBBBBBBBBB", 8, 65_500, 65_500, 3, 1, 17, 0, 2, 17, 0, 3, 17, 0)
    vp8x = b"VP8X" + struct.pack("<IB3x", 10, 0) + (side - 1).to_bytes(3, "little") * 2
    gif = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6)
    image = b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\x00"
    return {
        "PNG of 8000 x 8000 bits": b"\x89PNG\r\n\x1a\n" + b"".join(chunks),
        "JPEG of 65500 x 65500": b"\xff\xd8\xff\xc0"
        + struct.pack(">H", len(frame) + 2)
        + frame
        + bytes(100)
        + b"\xff\xd9",
        "WebP of 30000 x 30000": b"RIFF" + struct.pack("<I", len(vp8x) + 4) + b"WEBP" + vp8x,
        "TIFF of 30000 x 30000": b"II*\0" + struct.pack("<IH", 8, len(tags)) + tiff + bytes(4),
        "BMP of 30000 x 30000": b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, *[0] * 6),
        "GIF of 65535 x 65535, 500 frames": gif + image * 500 + b";",
        "JPEG 2000 of 5000 x 5000 in blocks of 4 x 4": image_files.jpeg_2000(5000).replace(b"\5\4\4", b"\5\0\0"),
    }


def bodies() -> list[bytes]:
    """Bodies that are no form."""
    deep = b'{"feed":' + b"[" * 5000
    shapes: list[object] = [{}, [], 1, "x", None, {"feed": {}, "fetch": []}, {"feed": [1], "fetch": []}]
    forms = [repr(shape).replace("'", '"').replace("None", "null").encode() for shape in shapes]
    return [
        b"",
        b"{",
        b"\xff" * 100,
        deep,
        *forms,
        client.body(b"x", fetch=("../../etc/passwd",)),
        b'{"feed":[{"x":1}],"fetch":[]}',
    ]


def run(context: Context) -> Finding:
    """All of it against both ports, from several threads, with good requests in between."""
    stack = context.shared
    dice = random.Random(2)
    parcels = [client.body(data) for data in files().values()] + bodies()
    parcels += [client.body(data, image_files.files()["jpeg"]) for data in list(files().values())[::5]]
    parcels = parcels * (1 if context.options.quick else 5)
    dice.shuffle(parcels)
    replies: list[Reply] = []
    raw: list[int] = []
    at_det: list[int] = []
    headers = {"X-Request-Id": "a\tb/../c", "Accept": "\xff", "X-Request-Timeout": "60"}

    def garbage() -> None:
        for data in [*FRAMES.values(), *[dice.randbytes(2000) for _ in range(20)]]:
            raw.extend(client.raw_statuses(client.raw(stack.port, data, seconds=2, end=True)))
            at_det.extend(client.raw_statuses(client.raw(stack.det.port, data, seconds=2, end=True)))
        for kind in ("application/json", "application/proto", "application/octet-stream", ""):
            for data in (b"{", b"\xff" * 50, dice.randbytes(500), b'{"tensor":[{"shape":[-1,9e9]}]}'):
                paths = (client.DET_PATH, "/v2/models/x/infer", "/../../etc/passwd")
                at_det.extend(client.post(stack.det.port, data, {"Content-Type": kind}, path).status for path in paths)

    noise = threading.Thread(target=garbage)
    noise.start()
    replies += client.send_all(stack.port, parcels, 4, headers)
    noise.join()
    alive = stack.is_alive()
    context.notes["answers"] = Finding(" ".join(reply.body.decode(errors="replace") for reply in replies), None)
    found = client.statuses(replies)
    figure = (
        f"bodies: {counts(found)}; garbage on the web port: {_counted(raw)}; on the model server's: "
        f"{_counted(at_det)}; alive: {alive}"
    )
    return Finding(figure, alive and not any(status >= 500 or not status for status in [*found, *raw, *at_det]))


def _counted(found: list[int]) -> str:
    return counts({status: found.count(status) for status in set(found)})


SCENARIOS = (
    Scenario(
        "H",
        "the mixed hostile run: files, bodies and garbage of every kind on both ports at once; no answer may be 5xx",
        run,
    ),
)
