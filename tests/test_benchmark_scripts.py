"""Every benchmark script once, on one image, for as short as it goes; then the report of what they wrote."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "sweep": ["--limit", "1", "--repeat", "1", "--try", "det_limit_side=320", "rec_min_score=1", "--try", "threads=1"],
    "stages": ["--limit", "1", "--repeat", "1", "--models", "ppocrv6_tiny"],
    "peers": ["--limit", "1", "--repeat", "0", "--peers", "ours", "ours-rpc"],
    "load": ["--limit", "1", "--services", "in-process", "--clients", "1", "2", "--rates", "0.5", "--seconds", "0.5"],
    "scaling": ["--limit", "1", "--repeat", "1", "--models", "ppocrv6_tiny", "--families", "ppocrv6_tiny"],
    "engines": ["--limit", "1", "--repeat", "3", "--families", "ppocrv6_tiny", "--engines", "openvino-f32"],
    "start": ["--limit", "1", "--repeat", "1", "--services", "in-process"],
}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of one image whose label is right."""
    folder = tmp_path_factory.mktemp("images") / "signs"
    folder.mkdir()
    (folder / "sign.jpg").symlink_to(ROOT / "imgs" / "sign.jpg")
    texts = ["东湖公园", "EAST LAKE PARK", "游客中心 300 m", "Visitor Centre", "请勿攀爬", "No climbing"]
    row = {"image": "sign.jpg", "lines": [{"text": text} for text in texts]}
    (folder / "labels.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


class Results:
    """The result files, each script run when its own is first asked for."""

    def __init__(self, folder: Path, images: Path) -> None:
        self.folder = folder
        self._images = images

    def data(self, name: str) -> dict:
        file = self.folder / f"{name}.json"
        if not file.exists():
            images = [] if name == "scaling" else ["--images", str(self._images)]
            done = run(name, *SCRIPTS[name], *images, "--json", str(file))
            assert "| --- |" in done.stdout
        return json.loads(file.read_text(encoding="utf-8"))["data"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, labelled: Path) -> Results:
    return Results(tmp_path_factory.mktemp("results"), labelled)


def run(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmark" / f"{name}.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_stages_of_a_request_add_up_to_its_time(results: Results) -> None:
    services = results.data("stages")["sets"]["signs"]["services"]
    chained = services.pop("chained")
    assert [stage for stage, ms in chained.items() if ms is not None] == ["client_read", "total"]
    for stages in services.values():
        outside = stages["client_read"] + stages["upload"] + stages["server"] + stages["download"]
        assert outside == pytest.approx(stages["total"], rel=0.01)
        assert min(stages["det_infer"], stages["rec_infer"]) > 0


def test_peers_read_the_same_text_in_process_and_over_rpc(results: Results) -> None:
    found = results.data("peers")
    ours, rpc = (found["sets"]["signs"][name] for name in ("ours", "ours-rpc"))

    assert ours["f1"] == rpc["f1"] > 0.9
    assert ours["failed"] == rpc["failed"] == 0
    ratio = found["ratios"]["ours-rpc"]["signs"]
    assert ratio == pytest.approx(ours["images_per_s"] / rpc["images_per_s"])


def test_settings_are_judged_by_f1_and_time_side_by_side(results: Results) -> None:
    found = results.data("sweep")["sets"]["signs"]

    assert list(found) == ["defaults", "det_limit_side=320", "rec_min_score=1", "threads=1"]
    assert found["defaults"]["f1"] == found["threads=1"]["f1"] > 0.9
    assert found["rec_min_score=1"]["f1"] == 0.0
    assert all(row["ms"] > 0 and row["failed"] == 0 for row in found.values())


@pytest.mark.parametrize(
    ("tried", "says"),
    [
        ("det_box_tresh=0.6", "det_box_tresh cannot be tried here"),
        ("port=9", "port cannot be tried here"),
        ("det_limit_side=big", "must be a whole number"),
    ],
)
def test_a_setting_that_would_change_nothing_is_not_tried(tried: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmark" / "sweep.py"), "--try", tried], capture_output=True, text=True
    )

    assert done.returncode == 2
    assert says in done.stderr


def test_every_request_of_a_load_step_is_accounted_for(results: Results) -> None:
    steps = results.data("load")["in-process"]
    for step in steps["closed"] + steps["open"]:
        assert not step["failures"]
        assert step["processes"]["web"]["rss_mb"] > 100
    assert all(step["images_per_s"] > 0 for step in steps["closed"])


def test_scaling_finds_the_lines_that_it_drew(results: Results) -> None:
    series = results.data("scaling")

    assert set(series) == {"lines", "pixels", "concurrency", "cores", "models"}
    (point,) = series["lines"]["points"]
    assert (point["x"], point["found"]) == (1, 1)


def test_engines_have_a_floor(results: Results) -> None:
    (row,) = results.data("engines")["families"]["ppocrv6_tiny"]

    assert row["lines"] == 6
    assert row["floor_ms"] == pytest.approx(row["det_ms"] + row["rec_floor_ms"], abs=0.02)
    assert row["page_ms"] / 3 < row["floor_ms"] < row["page_ms"] * 3  # the machine may be busy


def test_start_is_timed_and_weighed(results: Results) -> None:
    found = results.data("start")
    (start,) = found["services"]["in-process"]["starts"]

    assert 0 < start["ready_s"] < start["first_answer_s"]
    assert found["services"]["in-process"]["memory"]["web"]["pss_mb"] > 100
    assert found["packages"]["openvino"] > 50


def test_the_report_holds_every_part_and_small_plots_and_no_path(
    results: Results, labelled: Path, tmp_path: Path
) -> None:
    for name in SCRIPTS:
        results.data(name)
    shutil.copy(results.folder / "stages.json", results.folder / "stages-other.json")  # of another processor
    run("report", "--results", str(results.folder), "--out", str(tmp_path / "benchmarks.md"))

    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == len(SCRIPTS)
    assert "| ours | PP-OCRv6 small |" in text
    assert str(ROOT) not in text
    assert str(labelled) not in text
    plots = list((tmp_path / "benchmarks").iterdir())
    drawn = {plot.stem for plot in plots}
    assert drawn >= {*SCRIPTS, "stages-other"} - {"scaling"}  # whose series have one point here
    assert {plot.name for plot in plots} == {f"{name}{suffix}" for name in drawn for suffix in (".svg", ".png")}
    assert all(f"(benchmarks/{name}.svg)" in text for name in drawn)
    assert all(plot.stat().st_size < 100_000 for plot in plots)
