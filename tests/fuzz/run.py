"""Coverage-guided fuzzing of one decoder, for a given time: python tests/fuzz/run.py image 600

Ends with status 0 where nothing was found. A find is printed, and its input kept as tests/fuzz/crash-* (or timeout-*,
oom-*); running the command with that file instead of the seconds tries it again.
"""

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["ocr_serving"]):
    from fuzz_targets import REFUSALS, TARGETS

MOST_SECONDS, MOST_MEGABYTES = 2, 1024
"""What one input may take: reliability scenario D4."""


def main() -> None:
    name, what = sys.argv[1:]
    decode, seeds = TARGETS[name]

    def one_input(data: bytes) -> None:
        with suppress(*REFUSALS):
            decode(data)

    with tempfile.TemporaryDirectory() as corpus:
        for i, seed in enumerate(seeds()):
            (Path(corpus) / str(i)).write_bytes(seed)
        runs = [f"-max_total_time={what}", corpus] if what.isdecimal() else [what]
        limits = [f"-timeout={MOST_SECONDS}", f"-rss_limit_mb={MOST_MEGABYTES}", "-max_len=65536"]
        atheris.Setup([sys.argv[0], f"-artifact_prefix={Path(__file__).parent}/", *limits, *runs], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
