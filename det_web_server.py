"""The det web service: text boxes, from a model server of its own; --help shows its settings."""

from ocr_serving.web.command import main

if __name__ == "__main__":
    raise SystemExit(main("det"))
