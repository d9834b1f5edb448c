"""The rec web service: the text of one-line images, from a model server of its own; --help shows its settings."""

from ocr_serving.web.command import main

if __name__ == "__main__":
    raise SystemExit(main("rec"))
