"""Paddle Serving 0.9's reader operators, as far as its OCR examples use them."""

from ocr_serving.compat.box_ops import DBPostProcess, FilterBoxes, GetRotateCropImage, SortedBoxes
from ocr_serving.compat.ocr_reader import OCRReader
from ocr_serving.compat.reader_ops import (
    BGR2RGB,
    RGB2BGR,
    Base64ToImage,
    CenterCrop,
    Div,
    File2Image,
    Normalize,
    Resize,
    ResizeByFactor,
    Sequential,
    String2Image,
    Transpose,
    URL2Image,
)

__all__ = [
    "BGR2RGB",
    "RGB2BGR",
    "Base64ToImage",
    "CenterCrop",
    "DBPostProcess",
    "Div",
    "File2Image",
    "FilterBoxes",
    "GetRotateCropImage",
    "Normalize",
    "OCRReader",
    "Resize",
    "ResizeByFactor",
    "Sequential",
    "SortedBoxes",
    "String2Image",
    "Transpose",
    "URL2Image",
]
