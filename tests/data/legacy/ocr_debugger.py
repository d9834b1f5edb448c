# A file as a user of Paddle Serving 0.9 wrote it: both models in one process.
# Usage: python3 ocr_debugger.py PORT
import base64
import sys

import cv2
import numpy as np

from paddle_serving_app.local_predict import LocalPredictor
from paddle_serving_app.reader import (
    DBPostProcess,
    Div,
    FilterBoxes,
    GetRotateCropImage,
    Normalize,
    OCRReader,
    ResizeByFactor,
    Sequential,
    SortedBoxes,
    Transpose,
)
from paddle_serving_server.web_service import WebService

FETCH = ["save_infer_model/scale_0.tmp_1"]


class TextService(WebService):
    def init_det_debugger(self, det_model_config):
        scale = Sequential([ResizeByFactor(32, 960), Div(255)])
        normalize = Sequential([Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), Transpose((2, 0, 1))])
        self.det_preprocess = Sequential([scale, normalize])
        self.det_client = LocalPredictor()
        self.det_client.load_model_config(det_model_config)
        self.ocr_reader = OCRReader()

    def preprocess(self, feed=[], fetch=[]):
        im = cv2.imdecode(np.fromstring(base64.b64decode(feed[0]["x"]), np.uint8), cv2.IMREAD_COLOR)
        height, width, _ = im.shape
        det_img = self.det_preprocess(im)[np.newaxis, :].copy()
        det_out = self.det_client.predict(feed={"x": det_img}, fetch=FETCH, batch=True)
        params = {"thresh": 0.3, "box_thresh": 0.5, "max_candidates": 1000, "unclip_ratio": 1.5, "min_size": 3}
        ratio = [float(det_img.shape[2]) / height, float(det_img.shape[3]) / width]
        boxes = DBPostProcess(params)(det_out[FETCH[0]], [ratio])[0]
        boxes = SortedBoxes()(FilterBoxes(10, 10)(boxes, [height, width]))
        crops = []
        for i, _ in enumerate(boxes):
            crops.append(GetRotateCropImage()(im, boxes[i]))
        if len(crops) == 0:
            return [], []
        ratios = [crop.shape[1] * 1.0 / crop.shape[0] for crop in crops]
        _, h, w = self.ocr_reader.resize_norm_img(crops[0], max(ratios)).shape
        imgs = np.zeros((len(crops), 3, h, w)).astype("float32")
        for i, crop in enumerate(crops):
            imgs[i] = self.ocr_reader.resize_norm_img(crop, max(ratios))
        return {"x": imgs.copy()}, FETCH, True

    def postprocess(self, feed={}, fetch=[], fetch_map=None):
        found = self.ocr_reader.postprocess_ocrv2(fetch_map, with_score=True)
        return {"res": [text for text, score in found]}


service = TextService(name="ocr")
service.load_model_config("ocr_rec_model")
service.prepare_server(workdir="workdir", port=int(sys.argv[1]))
service.init_det_debugger(det_model_config="ocr_det_model")
service.run_debugger_service()
service.run_web_service()
