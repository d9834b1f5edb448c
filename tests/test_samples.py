"""The sample images: what is committed is what the script draws, and the models read every line of it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import zoo_models
from ocr_requests import without_spaces
from server_process import ROOT

from ocr_serving import samples
from ocr_serving.detection import Detector
from ocr_serving.pipeline import Pipeline
from ocr_serving.recognition import Recognizer
from ocr_serving.settings import Settings

SAMPLES = {sample.name: sample for sample in samples.render()}
PAGES = [name for name in SAMPLES if name.startswith("imgs/")]


@pytest.fixture(scope="module")
def recognizer():
    rec = zoo_models.predictor("ocr_rec")
    return Recognizer(rec, rec.model.characters, rec.model.image_height, Settings())


@pytest.fixture(scope="module")
def detector():
    return Detector(zoo_models.predictor("ocr_det"), Settings())


@pytest.mark.parametrize("name", SAMPLES)
def test_the_committed_image_is_the_drawn_one(name):
    committed = cv2.imread(str(ROOT / name))
    drawn = SAMPLES[name].image
    assert committed.shape == drawn.shape
    assert np.abs(committed.astype(int) - drawn).mean() < 5


def test_the_folders_hold_nothing_else():
    committed = {str(path.relative_to(ROOT)) for folder in ("imgs", "rec_img") for path in (ROOT / folder).iterdir()}
    assert committed == set(SAMPLES)


@pytest.mark.parametrize("name", PAGES)
def test_every_line_of_a_page_is_found_and_read(name, detector, recognizer):
    page = Pipeline(detector, recognizer, Settings().rec_min_score).run(cv2.imread(str(ROOT / name)))
    truth = SAMPLES[name]
    assert sorted(without_spaces(page.texts)) == sorted(without_spaces(truth.texts))
    for quad, text in zip(truth.quads, truth.texts, strict=True):
        found = page.quads[without_spaces(page.texts).index(*without_spaces([text]))]
        overlap, _ = cv2.intersectConvexConvex(quad, found)
        assert overlap / (cv2.contourArea(quad) + cv2.contourArea(found) - overlap) > 0.5, text


def test_a_small_picture_is_read(detector, recognizer):
    """Letters of five to eight pixels; without enlarging, 20 of 22 lines."""
    receipt = SAMPLES["imgs/receipt.jpg"]
    small = cv2.resize(receipt.image, None, fx=0.35, fy=0.35, interpolation=cv2.INTER_AREA)
    page = Pipeline(detector, recognizer, Settings().rec_min_score).run(small)
    assert len({*without_spaces(page.texts)} & {*without_spaces(receipt.texts)}) >= len(receipt.texts) - 1


def test_small_text_on_a_large_sheet_is_read(detector, recognizer):
    """Letters of five pixels where det first looks; without a second look, 21 of 25 lines."""
    document = SAMPLES["imgs/document.jpg"]
    height, width = document.image.shape[:2]
    sheet = cv2.copyMakeBorder(document.image, 0, 3 * height, 0, 3 * width, cv2.BORDER_REPLICATE)
    page = Pipeline(detector, recognizer, Settings().rec_min_score).run(sheet)
    assert len({*without_spaces(page.texts)} & {*without_spaces(document.texts)}) >= len(document.texts) - 1


def test_every_line_of_rec_img_is_read(recognizer):
    names = sorted(set(SAMPLES) - set(PAGES))
    lines = recognizer.recognize([cv2.imread(str(ROOT / name)) for name in names])
    assert without_spaces(line.text for line in lines) == without_spaces(SAMPLES[name].texts[0] for name in names)


def test_the_command_draws_into_the_working_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    samples.main()
    assert capsys.readouterr().out.split() == list(SAMPLES)
    assert all(Path(name).stat().st_size < 300_000 for name in SAMPLES)


def test_a_line_reads_the_same_alone_and_among_others(recognizer):
    """Reliability scenario C4: its input depends on itself alone, whatever the batch it goes in."""
    crops = [cv2.imread(str(ROOT / name)) for name in SAMPLES if name.startswith("rec_img/")]
    alone = [recognizer.recognize([crop])[0] for crop in crops]
    for copies in (1, 2, 3, 8):
        together = recognizer.recognize([crop for crop in crops for _ in range(copies)])
        for i, line in enumerate(together):
            assert line.text == alone[i // copies].text
            assert line.score == pytest.approx(alone[i // copies].score, abs=1e-3)
