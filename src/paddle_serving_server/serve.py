"""`python3 -m paddle_serving_server.serve`, the command Paddle Serving users know."""

import sys

from ocr_serving.server.serve_command import main

if __name__ == "__main__":
    sys.exit(main())
