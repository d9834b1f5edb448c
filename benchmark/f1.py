"""F1 of the text found on a page against its label: the measure that public OCR servers report on FUNSD.

Latin pages are compared as bags of words, Chinese pages as bags of characters. Lines labelled "###" (do not care) are
left out of the truth; text found there counts as false, so compare F1 between systems on the same set only.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

IGNORED = "###"
_WORD = re.compile(r"[a-z0-9]+")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def page_f1(truth: Sequence[str], found: Sequence[str]) -> float:
    """F1 of one page, 0 to 1.

    Args:
        truth: the texts of its labelled lines, any order.
        found: the texts that an OCR system answered, any order.
    """
    labelled = " ".join(line for line in truth if line != IGNORED)
    units = _characters if _CHINESE.search(labelled) else _words
    return bag_f1(units(labelled), units(" ".join(found)))


def bag_f1(truth: Counter[str], found: Counter[str]) -> float:
    """Harmonic mean of precision and recall of two bags; 1 where both are empty, 0 where one is."""
    if not truth or not found:
        return float(truth == found)
    return 2 * (truth & found).total() / (truth.total() + found.total())


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def _characters(text: str) -> Counter[str]:
    """Characters without white space, width forms and case."""
    return Counter("".join(unicodedata.normalize("NFKC", text).split()).casefold())
