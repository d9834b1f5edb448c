# A file as a user of Paddle Serving 0.9 wrote it: boxes from a det model server, texts from a rec model of its own.
# Usage: python3 ocr_rpc.py PORT DET_PORT
import base64
import sys

import cv2
import numpy as np

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
from paddle_serving_client import Client
from paddle_serving_server.web_service import WebService

OUTPUT = "save_infer_model/scale_0.tmp_1"


class TextService(WebService):
    def init_det_client(self, port, config):
        self.prepare = Sequential(
            [
                ResizeByFactor(32, 960),
                Div(255),
                Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
                Transpose((2, 0, 1)),
            ]
        )
        self.det = Client()
        self.det.load_client_config(config)
        self.det.connect([f"127.0.0.1:{port}"])
        self.reader = OCRReader()

    def find_boxes(self, image):
        tensor = self.prepare(image)
        answer = self.det.predict(feed={"x": tensor}, fetch=[OUTPUT], batch=False)
        post = DBPostProcess(
            {"thresh": 0.3, "box_thresh": 0.5, "max_candidates": 1000, "unclip_ratio": 1.5, "min_size": 3}
        )
        ratios = [float(tensor.shape[1]) / image.shape[0], float(tensor.shape[2]) / image.shape[1]]
        boxes = FilterBoxes(10, 10)(post(answer[OUTPUT], [ratios])[0], image.shape[:2])
        return SortedBoxes()(boxes)

    def preprocess(self, feed=[], fetch=[]):
        data = np.fromstring(base64.b64decode(feed[0]["x"].encode("utf8")), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        cut = GetRotateCropImage()
        crops = [cut(image, box) for box in self.find_boxes(image)]
        widest = max([crop.shape[1] * 1.0 / crop.shape[0] for crop in crops] + [0])
        lines = [self.reader.resize_norm_img(crop, widest)[np.newaxis, :] for crop in crops]
        return {"x": np.concatenate(lines, axis=0)}, [OUTPUT], True

    def postprocess(self, feed={}, fetch=[], fetch_map=None):
        return {"res": [line[0] for line in self.reader.postprocess_ocrv2(fetch_map, with_score=True)]}


service = TextService(name="ocr")
service.load_model_config("ocr_rec_model")
service.prepare_server(workdir="workdir", port=int(sys.argv[1]))
service.init_det_client(port=int(sys.argv[2]), config="ocr_det_client/serving_client_conf.prototxt")
service.run_rpc_service()
service.run_web_service()
