"""What the plots share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def log_x(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis with these values written on it."""
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values], fontsize="small")
    axes.set_xticks([], minor=True)


def log_y(axes: Axes) -> None:
    """A logarithmic y axis in plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
