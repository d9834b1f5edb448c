"""What settings do to accuracy and time: F1 and milliseconds a page, for the defaults and for each variant of them.

    .venv/bin/python benchmark/sweep.py --images SET... --try det_limit_side=1280 det_box_thresh=0.6,rec_min_score=0

Our in-process pipeline, from the bytes of an image file to its texts. All variants stay loaded and read every image in
turn. F1 is the mean over all images. Time is the median over the first --timed images of a set, each read once without
counting and then --repeat times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import geometric_mean, median
from typing import TYPE_CHECKING

from harness import images, ours, result, turns
from harness.images import ImageSet
from harness.measure import milliseconds
from harness.peer import LocalPeer
from harness.result import Result
from harness.services import Models

from ocr_serving.errors import ConfigError
from ocr_serving.predictor.base import Predictor
from ocr_serving.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULTS = "defaults"
"""The variant that changes nothing."""
TRIED = (
    "det_box_thresh=0.6",
    "det_box_thresh=0.7",
    "det_unclip_ratio=1.4",
    "det_unclip_ratio=1.6",
    "det_unclip_ratio=1.8",
    "det_thresh=0.2,det_box_thresh=0.45,det_unclip_ratio=1.4",
    "det_limit_side=1280",
    "det_limit_side=736",
    "rec_min_score=0",
    "rec_squeeze=1",
    "rec_squeeze=0.7",
    "rec_doubt_score=0",
)
"""With det_thresh: the values that the publisher of PP-OCRv6 uses."""
ENGINE_SETTINGS = ("engine", "device", "gpu_id", "precision", "threads")
"""Variants that differ in one of them need predictors of their own; all others share theirs."""
PIPELINE_SETTINGS = tuple(
    name
    for name in Settings.__struct_fields__
    if name.startswith(("det_", "rec_")) and not name.endswith(("_model", "_endpoint"))
)
Variants = Mapping[str, Mapping[str, str]]
"""Name -> the settings that it changes."""


def variants(tried: Sequence[str]) -> Variants:
    """The defaults, and a variant for each "name=value,name=value".

    Raises:
        ConfigError: something is not a setting of the pipeline, or not a value that it takes.
    """
    found: dict[str, dict[str, str]] = {DEFAULTS: {}}
    for text in tried:
        changes = {name: value for name, _, value in (part.partition("=") for part in text.split(","))}
        if unknown := [name for name in changes if name not in ENGINE_SETTINGS + PIPELINE_SETTINGS]:
            known = ", ".join(ENGINE_SETTINGS + PIPELINE_SETTINGS)
            raise ConfigError(f"{', '.join(unknown)} cannot be tried here; the settings of the pipeline are {known}.")
        Settings().replace(**changes)
        found[text] = changes
    return found


def measure(sets: Sequence[ImageSet], models: Models, tried: Variants, timed: int, repeat: int) -> Result:
    """Set -> variant -> F1 and milliseconds a page."""
    with ExitStack() as stack:
        peers = _open(models, tried, stack)
        found = {}
        for image_set in sets:
            first = turns.read_set(ImageSet(image_set.name, image_set.images[:timed]), peers, 1 + repeat)
            rest = turns.read_set(ImageSet(image_set.name, image_set.images[timed:]), peers, 1)
            found[image_set.name] = {name: _figures(image_set, first[name], rest[name]) for name in peers}
    return {"images": {image_set.name: len(image_set.images) for image_set in sets}, "sets": found}


def _open(models: Models, tried: Variants, stack: ExitStack) -> dict[str, LocalPeer]:
    """Variant -> its pipeline."""
    predictors: dict[tuple[object, ...], tuple[Predictor, Predictor]] = {}
    peers = {}
    for name, changes in tried.items():
        chosen = ours.choose(models, **changes)
        engine = tuple(getattr(chosen, setting) for setting in ENGINE_SETTINGS)
        if engine not in predictors:
            predictors[engine] = stack.enter_context(ours.local_predictors(models, chosen))
        peers[name] = LocalPeer(stack.enter_context(ours.reader_on(*predictors[engine], models, chosen)))
    return peers


def _figures(image_set: ImageSet, first: list[turns.Passes], rest: list[turns.Passes]) -> Result:
    """Of one variant on one set: the readings of the timed images, and of the others."""
    times = [seconds for seconds in map(turns.seen, first) if seconds]
    return {
        "f1": turns.mean_f1(image_set.images, first + rest),
        "ms": milliseconds(median(times)) if times else None,
        "failed": sum(passes[-1] is None for passes in first + rest),
    }


def markdown(data: Result) -> str:
    """One row a variant."""
    sets = data["sets"]
    head = ["setting"]
    for name, count in data["images"].items():
        head += [f"{name}, {count} images: F1", "ms"]
    rows: list[list[object]] = []
    for variant in next(iter(sets.values())):
        found = [(figures[variant], figures[DEFAULTS]) for figures in sets.values()]
        cells = [cell for own, _ in found for cell in (_f1(own["f1"]), own["ms"])]
        ratios = [own["ms"] / usual["ms"] for own, usual in found if own["ms"] and usual["ms"]]
        failed = sum(own["failed"] for own, _ in found)
        rows.append([variant.replace(",", ", "), *cells, geometric_mean(ratios) if ratios else None, failed])
    return result.table([*head, "time / defaults, geometric mean", "failed"], rows)


def _f1(value: float | None) -> str | None:
    """With as many digits as settings differ by."""
    return None if value is None else f"{value:.3f}"


def figures(data: Result) -> dict[str, Figure]:
    """Milliseconds a page as bars, F1 written at their ends."""
    from matplotlib.figure import Figure

    sets = data["sets"]
    names = list(next(iter(sets.values())))
    figure = Figure(figsize=(3 + 2.2 * len(sets), 0.8 + 0.25 * len(names)), layout="constrained")
    for axes, (set_name, found) in zip(
        figure.subplots(1, len(sets), sharey=True, squeeze=False)[0], sets.items(), strict=True
    ):
        bars = axes.barh(names, [found[name]["ms"] or 0.0 for name in names], color="lightsteelblue")
        axes.bar_label(bars, [_f1(found[name]["f1"]) or "" for name in names], label_type="center", fontsize="small")
        axes.set(xlabel="ms, with F1", title=set_name)
        axes.tick_params(labelsize="small")
    axes.invert_yaxis()
    return {"sweep": figure}


def main() -> None:
    """Measure, write the result file, print the table."""
    parser = result.parser(__doc__ or "", "sweep")
    parser.add_argument(
        "--try", nargs="+", action="extend", metavar="NAME=VALUE[,NAME=VALUE]", dest="tried",
        help=f"settings of one variant each (default: {' '.join(TRIED)})",
    )  # fmt: skip
    parser.add_argument("--timed", type=int, default=5, help="images of a set that are timed (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=2, help="times each of them is timed (default: %(default)s)")
    parser.add_argument("--models", default="ppocrv6_small", help="family of the zoo's models (default: %(default)s)")
    args = parser.parse_args()
    args.tried = args.tried or list(TRIED)
    try:
        tried = variants(args.tried)
    except ConfigError as error:
        parser.error(str(error))
    sets = images.load(args.images, args.limit)
    result.finish(args, measure(sets, Models.fetch(args.models), tried, args.timed, args.repeat), markdown)


if __name__ == "__main__":
    main()
