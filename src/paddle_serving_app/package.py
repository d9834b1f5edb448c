"""`python3 -m paddle_serving_app.package`, the command Paddle Serving users know."""

import sys

from ocr_serving.package_command import main

if __name__ == "__main__":
    sys.exit(main())
