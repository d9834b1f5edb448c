"""Send the images of imgs/ to a server with det and rec chained, and print their texts.

python3 -m paddle_serving_server.serve --model ocr_det_model ocr_rec_model --port 9293
python3 ocr_cpp_client.py ocr_det_client ocr_rec_client
"""

import base64
import sys
from pathlib import Path

from ocr_serving.errors import OcrServingError
from ocr_serving.web_client import image_files
from paddle_serving_client import Client


def main() -> None:
    """Print a line with the texts of each image."""
    client = Client(raise_on_error=True)
    if len(sys.argv) != 3:
        sys.exit("usage: ocr_cpp_client.py ocr_det_client ocr_rec_client")
    client.load_client_config(sys.argv[1:])
    client.connect(["127.0.0.1:9293"])
    for file in image_files([Path("imgs")]):
        image = base64.b64encode(file.read_bytes()).decode()
        answer = client.predict(feed={"x": image}, fetch=["res"], batch=True)
        print({"res": answer["res"].tolist()})


if __name__ == "__main__":
    try:
        main()
    except OcrServingError as error:
        sys.exit(str(error))
