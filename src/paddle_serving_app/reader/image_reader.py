"""Paddle Serving 0.9's operators of images and boxes, as far as its OCR examples use them."""

from ocr_serving.compat.box_ops import DBPostProcess, FilterBoxes, GetRotateCropImage, SortedBoxes
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
    "Resize",
    "ResizeByFactor",
    "Sequential",
    "SortedBoxes",
    "String2Image",
    "Transpose",
    "URL2Image",
]
