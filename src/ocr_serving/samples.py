"""The sample images in imgs/ and rec_img/, drawn here, and the text that each one holds.

python3 -m ocr_serving.samples        draws them again, into the working directory
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving.draw import WEIGHT
from ocr_serving.geometry import Image, Quads, corners

Color = tuple[int, int, int]
"""Blue, green, red."""

INK: Color = (40, 36, 34)
FADED_INK: Color = (92, 84, 80)
WHITE: Color = (250, 250, 250)
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Text:
    """One line of text on a sheet.

    Attributes:
        text: what it says.
        x, y: left end and baseline, in pixels of the sheet.
        size: height of the letters in pixels.
        color: of the letters.
        font: a font built into OpenCV; "uni" has the Chinese characters.
    """

    text: str
    x: int
    y: int
    size: int
    color: Color = INK
    font: str = "uni"


@dataclass(frozen=True)
class Sample:
    """A drawn image and what it says.

    Attributes:
        name: path below the root of the repository.
        image: uint8 (h, w, 3) BGR.
        texts: n lines, from top to bottom and left to right.
        quads: float32 (n, 4, 2), around each line in pixels of the image, clockwise from top-left.
    """

    name: str
    image: Image
    texts: tuple[str, ...]
    quads: Quads


DOCUMENT = (
    Text("社区图书馆开放时间通知", 262, 110, 42),
    Text("Community Library: New Opening Hours", 230, 166, 30),
    Text("尊敬的读者：", 90, 246, 26),
    Text("自九月一日起，本馆延长晚间开放时间，欢迎前来阅读和自习。", 142, 296, 26),
    Text("三楼新增儿童阅览区，每周六上午举办亲子故事会，无需预约。", 142, 346, 26),
    Text("From 1 September the library stays open longer in the evening.", 90, 420, 25),
    Text("The third floor has a new reading room for children, and every", 90, 466, 25),
    Text("Saturday morning there is story time. No booking is needed.", 90, 512, 25),
    Text("日期 Day", 120, 612, 25),
    Text("开放 Opens", 420, 612, 25),
    Text("关闭 Closes", 700, 612, 25),
    Text("周一至周五", 120, 668, 25),
    Text("08:30", 420, 668, 25),
    Text("21:00", 700, 668, 25),
    Text("周六", 120, 724, 25),
    Text("09:00", 420, 724, 25),
    Text("18:00", 700, 724, 25),
    Text("周日", 120, 780, 25),
    Text("10:00", 420, 780, 25),
    Text("17:30", 700, 780, 25),
    Text("如有疑问，请致电 0571-8826 4130 或发送邮件至", 90, 876, 25),
    Text("help@library.example.org", 90, 922, 25),
    Text("社区图书馆", 720, 1020, 27),
    Text("2026年8月15日", 690, 1066, 25),
    Text("Page 1", 462, 1170, 20, FADED_INK),
)

RECEIPT = (
    Text("山间小站咖啡馆", 98, 70, 34, FADED_INK),
    Text("MOUNTAIN STATION CAFE", 72, 112, 24, FADED_INK, "sans"),
    Text("No. 26 Garden Road", 122, 148, 20, FADED_INK, "sans"),
    Text("Table 7", 36, 210, 20, FADED_INK, "sans"),
    Text("2026-03-14 09:36", 212, 210, 20, FADED_INK, "sans"),
    Text("拿铁咖啡 Latte", 36, 274, 23, FADED_INK),
    Text("Qty 2 at 28.00", 36, 306, 20, FADED_INK, "sans"),
    Text("56.00", 336, 306, 20, FADED_INK, "sans"),
    Text("红豆面包 Red bean bun", 36, 352, 23, FADED_INK),
    Text("Qty 1 at 12.50", 36, 384, 20, FADED_INK, "sans"),
    Text("12.50", 336, 384, 20, FADED_INK, "sans"),
    Text("柠檬蛋糕 Lemon cake", 36, 430, 23, FADED_INK),
    Text("Qty 1 at 24.00", 36, 462, 20, FADED_INK, "sans"),
    Text("24.00", 336, 462, 20, FADED_INK, "sans"),
    Text("Subtotal", 36, 532, 22, FADED_INK, "sans"),
    Text("92.50", 330, 532, 22, FADED_INK, "sans"),
    Text("会员优惠", 36, 570, 23, FADED_INK),
    Text("-6.00", 336, 570, 22, FADED_INK, "sans"),
    Text("合计 TOTAL", 36, 624, 30, FADED_INK),
    Text("86.50", 310, 624, 30, FADED_INK, "sans"),
    Text("谢谢光临", 150, 706, 26, FADED_INK),
    Text("Thank you, see you soon!", 84, 742, 20, FADED_INK, "sans"),
)

SIGN = (
    Text("东湖公园", 60, 108, 72, WHITE),
    Text("EAST LAKE PARK", 62, 170, 42, WHITE),
    Text("游客中心 300 m", 62, 272, 46, WHITE),
    Text("Visitor Centre", 62, 322, 34, WHITE),
    Text("请勿攀爬", 452, 272, 40, (90, 220, 250)),
    Text("No climbing", 454, 322, 30, (90, 220, 250)),
)

LINES: tuple[tuple[str, Text, Color], ...] = (
    ("line_1.png", Text("欢迎光临", 18, 50, 44, (35, 60, 170)), (214, 232, 240)),
    ("line_2.png", Text("Platform 3", 16, 48, 40, WHITE), (120, 78, 30)),
    ("line_3.png", Text("合计：86.50元", 14, 40, 30, FADED_INK), (236, 240, 240)),
    ("line_4.png", Text("2026-03-14 09:36", 12, 36, 26, INK, "sans"), (225, 236, 228)),
    ("line_5.png", Text("每周六上午举办亲子故事会，无需预约。", 14, 42, 30), (244, 246, 246)),
)
"""The samples of rec: name, the text on it, the color of the paper."""


def render() -> list[Sample]:
    """Every sample, the same at each call."""
    return [_document(), _receipt(), _sign(), *(_line(name, text, paper) for name, text, paper in LINES)]


def _document() -> Sample:
    """A page from a scanner: white, nearly straight."""
    page = np.full((1240, 1000, 3), (248, 250, 250), np.uint8)
    for y in (574, 630, 686, 742, 798):
        cv2.line(page, (90, y), (910, y), (150, 150, 150), 1, cv2.LINE_AA)
    quads = _write(page, DOCUMENT)
    turn = np.vstack([cv2.getRotationMatrix2D((500, 620), 0.3, 1.0), [0, 0, 1]])
    scanned = cv2.warpPerspective(page, turn, (1000, 1240), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return _sample("imgs/document.jpg", _noisy(scanned, 3), DOCUMENT, _moved(quads, turn))


def _receipt() -> Sample:
    """A thermal print on a wooden table: grey, askew, lit from one side."""
    paper = np.full((790, 440, 3), (232, 238, 240), np.uint8)
    for y in (234, 494, 656):
        for x in range(36, 404, 14):
            cv2.line(paper, (x, y), (x + 7, y), FADED_INK, 1, cv2.LINE_AA)
    quads = _write(paper, RECEIPT)
    table = _wood(920, 600)
    lay = _homography(paper, [(84, 66), (528, 48), (544, 850), (70, 868)])
    photo = _light(_paste(table, paper, lay), 1.03, 0.86)
    return _sample("imgs/receipt.jpg", _noisy(cv2.GaussianBlur(photo, (0, 0), 0.7), 4), RECEIPT, _moved(quads, lay))


def _sign() -> Sample:
    """A sign in a park, photographed from the left and from below."""
    board = np.full((370, 690, 3), (96, 74, 24), np.uint8)
    cv2.rectangle(board, (12, 12), (677, 357), WHITE, 4, cv2.LINE_AA)
    cv2.line(board, (60, 204), (630, 204), WHITE, 2, cv2.LINE_AA)
    quads = _write(board, SIGN)
    park = _park(720, 960)
    cv2.rectangle(park, (300, 430), (322, 720), (88, 92, 96), -1)
    cv2.rectangle(park, (690, 430), (708, 720), (84, 88, 92), -1)
    lean = _homography(board, [(150, 128), (836, 214), (812, 520), (172, 548)])
    photo = _light(_paste(park, board, lean), 0.92, 1.05)
    return _sample("imgs/sign.jpg", _noisy(cv2.GaussianBlur(photo, (0, 0), 0.9), 6), SIGN, _moved(quads, lean))


def _line(name: str, text: Text, paper: Color) -> Sample:
    """A crop that holds one line."""
    right = cv2.getTextSize((0, 0), text.text, (text.x, text.y), cv2.FontFace(text.font), text.size, WEIGHT)
    crop = np.full((text.y + text.size // 2, right[0] + right[2] + text.x, 3), paper, np.uint8)
    quads = _write(crop, (text,))
    return _sample(f"rec_img/{name}", _noisy(cv2.GaussianBlur(crop, (0, 0), 0.6), 4), (text,), quads)


def _write(sheet: Image, texts: tuple[Text, ...]) -> Quads:
    """Draw the texts on the sheet; their quads."""
    quads = []
    for text in texts:
        font = cv2.FontFace(text.font)
        x, y, w, h = cv2.getTextSize((0, 0), text.text, (text.x, text.y), font, text.size, WEIGHT)
        cv2.putText(sheet, text.text, (text.x, text.y), text.color, font, text.size, WEIGHT)
        quads.append([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])
    return np.array(quads, np.float32)


def _sample(name: str, image: Image, texts: tuple[Text, ...], quads: Quads) -> Sample:
    return Sample(name, image, tuple(text.text for text in texts), quads)


def _moved(quads: Quads, homography: NDArray[np.float64]) -> Quads:
    moved: Quads = cv2.perspectiveTransform(quads.reshape(-1, 1, 2), homography).reshape(-1, 4, 2)
    return moved


def _homography(sheet: Image, places: list[tuple[int, int]]) -> NDArray[np.float64]:
    """What takes the sheet's corners, clockwise from top-left, to these points of the photograph."""
    height, width = sheet.shape[:2]
    matrix: NDArray[np.float64] = cv2.getPerspectiveTransform(corners(width, height), np.array(places, np.float32))
    return matrix


def _paste(photo: Image, sheet: Image, homography: NDArray[np.float64]) -> Image:
    """The sheet laid on the photograph, with a soft shadow around it."""
    size = photo.shape[1::-1]
    inside = cv2.warpPerspective(np.full(sheet.shape[:2], 1, np.float32), homography, size)[..., None]
    shadow = cv2.GaussianBlur(np.roll(inside[..., 0], (8, 6), (0, 1)), (0, 0), 9)[..., None]
    warped = cv2.warpPerspective(sheet, homography, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return _to_bytes(photo * (1 - 0.45 * shadow) * (1 - inside) + warped * inside)


def _wood(height: int, width: int) -> Image:
    """A table: grain along x."""
    grain = np.random.default_rng(7).normal(0, 1, (height, width)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), sigmaX=60, sigmaY=1.2)
    return _to_bytes(np.array((74, 108, 150), np.float32) + 160 * grain[..., None])


def _park(height: int, width: int) -> Image:
    """Sky above trees, out of focus."""
    random = np.random.default_rng(11)
    height_down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = np.array((232, 208, 176), np.float32) * (1 - 0.25 * height_down) * np.ones((1, width, 1), np.float32)
    leaves = cv2.GaussianBlur(random.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 14)[..., None]
    trees = np.array((52, 104, 78), np.float32) + 500 * leaves
    skyline = 250 + 60 * cv2.GaussianBlur(random.normal(0, 1, (1, width)).astype(np.float32), (0, 0), 40) * 10
    below = 1 / (1 + np.exp(np.clip((skyline - np.arange(height, dtype=np.float32)[:, None]) / 12, -30, 30)))
    return _to_bytes(sky * (1 - below[..., None]) + trees * below[..., None])


def _light(photo: Image, left: float, right: float) -> Image:
    """Uneven light: factors at the left and at the right edge."""
    return _to_bytes(photo * np.linspace(left, right, photo.shape[1], dtype=np.float32)[None, :, None])


def _noisy(photo: Image, deviation: float) -> Image:
    """The noise of a sensor, in grey levels."""
    return _to_bytes(photo + np.random.default_rng(3).normal(0, deviation, photo.shape))


def _to_bytes(values: NDArray[np.floating]) -> Image:
    image: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return image


def save(sample: Sample, root: Path) -> Path:
    """Write a sample under the root folder; the path written."""
    path = root / sample.name
    path.parent.mkdir(exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    _, data = cv2.imencode(path.suffix, sample.image, options)
    path.write_bytes(data.tobytes())
    return path


def main() -> None:
    """Draw every sample into the working directory."""
    for sample in render():
        sys.stdout.write(f"{save(sample, Path())}\n")


if __name__ == "__main__":
    main()
