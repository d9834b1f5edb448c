"""Send the images of rec_img/ to the rec web service and print its answers; --help shows more."""

from ocr_serving.web_client import main

if __name__ == "__main__":
    raise SystemExit(main("rec"))
