"""A rec model's folder with a dictionary of one's own, and no model in it."""

from pathlib import Path

from ocr_serving import model_dir, model_writer


def write(folder: Path, characters: str) -> None:
    """What OCRReader looks at: a height of 48, and these characters."""
    folder.mkdir()
    (folder / "inference.onnx").touch()
    model_writer.write_conf(folder / model_dir.SERVER_CONF, *model_writer.variables((3, 48, 320)))
    resize = {"RecResizeImg": {"image_shape": [3, 48, 320]}}
    model_writer.write_paddlex_conf(folder, "toy_rec", [resize], {"name": "CTCLabelDecode"}, characters)
