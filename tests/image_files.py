"""Image files of every kind that people have, made here from one picture."""

import io
import struct
import zlib
from functools import cache

import cv2
import numpy as np
from PIL import Image

from ocr_serving.draw import WEIGHT

TEXTS = ("Invoice 2024/17", "Total due 348,90")
INK = (120, 40, 20)


@cache
def picture() -> np.ndarray:
    """Two lines of text, uint8 (150, 420, 3) BGR."""
    image = np.full((150, 420, 3), 255, np.uint8)
    for text, y in zip(TEXTS, (55, 120), strict=True):
        cv2.putText(image, text, (20, y), INK, cv2.FontFace("uni"), 40, WEIGHT)
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encoded(extension: str, image: np.ndarray, *options: int) -> bytes:
    ok, data = cv2.imencode(extension, image, options)
    assert ok
    return data.tobytes()


def jpeg_2000(side: int, **options: object) -> bytes:
    """A codestream that announces a grey picture of this many pixels a side, of which it holds a few."""
    data = bytearray(saved(Image.new("L", (250, 250)), "JPEG2000", no_jp2=True, **options))
    for place in (8, 24):  # of the picture, of a tile
        data[place : place + 8] = struct.pack(">II", side, side)
    return bytes(data)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_png_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """The chunk inserted after the header."""
    return png[:33] + png_chunk(kind, content) + png[33:]


def large_png(side: int, bits: int, *more: tuple[bytes, bytes]) -> bytes:
    """A black one, with more chunks after its header."""
    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(bytes(1 + side * bits // 8)) for _ in range(side)) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0)
    chunks = [png_chunk(kind, content) for kind, content in ((b"IHDR", header), *more, (b"IDAT", rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def oriented(kind: str, orientation: int, image: Image.Image, **options: object) -> bytes:
    """A file whose orientation tag says so; the pixels stay as they are."""
    if kind == "TIFF":
        return saved(image, kind, tiffinfo={0x0112: orientation}, **options)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, kind, exif=exif, **options)


def rgb() -> Image.Image:
    return Image.fromarray(picture()[:, :, ::-1])


def grey() -> Image.Image:
    return rgb().convert("L")


def opacity() -> np.ndarray:
    """255 in the letters, 0 far from them, between at their rims."""
    return 255 - np.array(grey())


def cut_out(hidden: int = 0) -> Image.Image:
    """Dark letters on nothing, RGBA; `hidden` is the level of the colour below the nothing."""
    rgba = np.full((*opacity().shape, 4), hidden, np.uint8)
    rgba[..., 3] = opacity()
    rgba[opacity() > 0, :3] = 0
    return Image.fromarray(rgba)


def grey_cut_out() -> Image.Image:
    return Image.merge("LA", (Image.new("L", rgb().size, 0), Image.fromarray(opacity())))


def near_black() -> Image.Image:
    """Black letters on the level 1, to be declared transparent."""
    return Image.fromarray((opacity() < 100).astype(np.uint8))


def bmp_with_unused_alpha() -> bytes:
    """Version 4 with masks for four channels, and 0 in all of the fourth: so is what lies in Windows' clipboard."""
    height, width = picture().shape[:2]
    fields = (108, width, height, 1, 32, 3, 4 * width * height, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiIIIIII", *fields).ljust(108, b"\0")
    pixels = np.dstack([picture(), np.zeros((height, width), np.uint8)])[::-1].tobytes()
    return b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + header + pixels


def sixteen_bits(image: np.ndarray) -> np.ndarray:
    return image.astype(np.uint16) * 257


def ycck() -> bytes:
    """A CMYK JPEG as Photoshop writes it: Adobe's transform 2, inverted. Pillow writes transform 0, so its channels are
    given the numbers that mean our picture once the file says 2."""
    y, cr, cb = cv2.split(cv2.cvtColor(255 - picture(), cv2.COLOR_BGR2YCrCb))
    numbers = np.dstack([255 - y, 255 - cb, 255 - cr, np.zeros_like(y)])
    data = saved(Image.fromarray(numbers, "CMYK"), "JPEG", quality=95, subsampling=0)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    return data[:at] + b"\x02" + data[at + 1 :]


@cache
def files() -> dict[str, bytes]:
    """Name -> a file that shows the picture."""
    palette = rgb().quantize(16)
    two_levels = grey().point(lambda level: 255 * (level > 128)).convert("1")
    cmyk = rgb().convert("CMYK")
    return {
        "png rgb": saved(rgb(), "PNG"),
        "png interlaced palette": saved(palette, "PNG", bits=4),
        "png 1 bit": saved(two_levels, "PNG"),
        "png grey": saved(grey(), "PNG"),
        "png grey, 16 bits": saved(Image.fromarray(sixteen_bits(np.array(grey()))), "PNG"),
        "png rgb, 16 bits": encoded(".png", sixteen_bits(picture())),
        "png grey and alpha": saved(grey_cut_out(), "PNG"),
        "png rgba": saved(cut_out(), "PNG"),
        "png rgba, white below": saved(cut_out(255), "PNG"),
        "png rgba, 16 bits": encoded(".png", sixteen_bits(np.array(cut_out()))),
        "png rgba, opaque": saved(rgb().convert("RGBA"), "PNG"),
        "png palette with transparency": saved(cut_out().quantize(16), "PNG"),
        "png grey with a transparent level": saved(near_black(), "PNG", transparency=1),
        "png with a bad profile": with_png_chunk(saved(rgb(), "PNG"), b"iCCP", b"a\0\0" + zlib.compress(b"no")),
        "png animated": saved(rgb(), "PNG", save_all=True, append_images=[rgb().rotate(180)]),
        "jpeg": saved(rgb(), "JPEG", quality=92),
        "jpeg grey": saved(grey(), "JPEG", quality=92),
        "jpeg progressive": saved(rgb(), "JPEG", quality=92, progressive=True),
        "jpeg cmyk": saved(cmyk, "JPEG", quality=92),
        "jpeg ycck": ycck(),
        "jpeg with bytes after its end": saved(rgb(), "JPEG", quality=92) + bytes(100),
        "gif": saved(palette, "GIF"),
        "gif with transparency": saved(cut_out(), "GIF"),
        "gif animated": saved(palette, "GIF", save_all=True, append_images=[palette.rotate(180)]),
        "bmp": saved(rgb(), "BMP"),
        "bmp palette": saved(palette, "BMP"),
        "bmp 1 bit": saved(two_levels, "BMP"),
        "bmp with an unused fourth byte": bmp_with_unused_alpha(),
        "tiff": saved(rgb(), "TIFF"),
        "tiff lzw": saved(rgb(), "TIFF", compression="tiff_lzw"),
        "tiff deflate": saved(rgb(), "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": saved(rgb(), "TIFF", compression="jpeg"),
        "tiff fax": saved(two_levels, "TIFF", compression="group4"),
        "tiff grey": saved(grey(), "TIFF"),
        "tiff palette": saved(palette, "TIFF"),
        "tiff grey, 16 bits": saved(Image.fromarray(sixteen_bits(np.array(grey()))), "TIFF"),
        "tiff rgb, 16 bits": encoded(".tiff", sixteen_bits(picture())),
        "tiff rgba": saved(cut_out(), "TIFF", compression="tiff_lzw"),
        "tiff cmyk": saved(cmyk, "TIFF"),
        "tiff of two pages": saved(rgb(), "TIFF", save_all=True, append_images=[rgb().rotate(180)]),
        "webp": saved(rgb(), "WEBP", quality=92),
        "webp lossless": saved(rgb(), "WEBP", lossless=True),
        "webp rgba": saved(cut_out(), "WEBP", lossless=True, exact=True),
        "webp animated": saved(rgb(), "WEBP", save_all=True, append_images=[rgb().rotate(180)]),
        "jp2": saved(rgb(), "JPEG2000"),
        "jp2 grey": saved(grey(), "JPEG2000"),
        "jp2 rgba": saved(cut_out(), "JPEG2000"),
        "avif": encoded(".avif", picture(), cv2.IMWRITE_AVIF_QUALITY, 92),
        "avif rgba": encoded(".avif", np.array(cut_out()), cv2.IMWRITE_AVIF_QUALITY, 92),
        "avif, 10 bits": encoded(".avif", picture().astype(np.uint16) * 4, cv2.IMWRITE_AVIF_DEPTH, 10),
        "ppm": saved(rgb(), "PPM"),
        "pgm, 16 bits": saved(Image.fromarray(sixteen_bits(np.array(grey()))), "PPM"),
        "pbm": saved(two_levels, "PPM"),
        "pam": encoded(".pam", picture()),
        "ras": encoded(".ras", picture()),
        "hdr": encoded(".hdr", picture().astype(np.float32) / 255),
    }
