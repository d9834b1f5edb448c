"""The OCR web service: text out of a picture, boxes from the det model server; --help shows its settings."""

from ocr_serving.web.command import main

if __name__ == "__main__":
    raise SystemExit(main("ocr"))
