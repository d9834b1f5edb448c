"""Send the images of imgs/ to the ocr web service and print its answers; --help shows more."""

from ocr_serving.web_client import main

if __name__ == "__main__":
    raise SystemExit(main("ocr"))
