# A file as a user of Paddle Serving 0.9 wrote it: the web service is one part of a larger program.
# Usage: python3 elsewhere.py PORT thread|process
import multiprocessing
import signal
import sys
import threading

from paddle_serving_server.web_service import WebService

service = WebService(name="ocr")
service.load_model_config("det_model")
service.prepare_server(workdir="workdir", port=int(sys.argv[1]))
service.run_rpc_service()
if sys.argv[2] == "thread":
    web = threading.Thread(target=service.run_web_service, daemon=True)
    web.start()
else:
    web = multiprocessing.get_context("fork").Process(target=service.run_web_service)
    web.start()
    signal.signal(signal.SIGTERM, lambda *_: web.terminate())
web.join()
sys.exit(getattr(web, "exitcode", 0))
