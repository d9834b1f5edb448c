# A file as a user of Paddle Serving 0.9 wrote it: lines of text, read by the service's own model server.
# Usage: python3 rec.py PORT
import base64
import sys

import cv2
import numpy as np

from paddle_serving_app.reader import OCRReader
from paddle_serving_server.web_service import WebService


class LineService(WebService):
    def init_rec(self):
        self.ocr_reader = OCRReader()

    def preprocess(self, feed=[], fetch=[]):
        if len(feed) > 4:
            raise ValueError("at most four lines")
        lines = []
        for item in feed:
            data = np.fromstring(base64.b64decode(item["x"].encode("utf8")), np.uint8)
            lines.append(cv2.imdecode(data, cv2.IMREAD_COLOR))
        widest = 0
        for line in lines:
            h, w = line.shape[0:2]
            widest = max(widest, w * 1.0 / h)
        imgs = np.stack([self.ocr_reader.resize_norm_img(line, widest) for line in lines])
        return {"x": imgs, "fetch": fetch}, ["save_infer_model/scale_0.tmp_1"], True

    def postprocess(self, feed={}, fetch=[], fetch_map=None):
        return {"res": [found[0] for found in self.ocr_reader.postprocess_ocrv2(fetch_map)]}


line_service = LineService(name="ocr")
line_service.load_model_config("ocr_rec_model")
line_service.init_rec()
line_service.set_gpus("-1")
line_service.prepare_server(workdir="workdir", port=int(sys.argv[1]), device="cpu")
line_service.run_rpc_service()
line_service.run_web_service()
