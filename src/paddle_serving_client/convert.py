"""`python3 -m paddle_serving_client.convert`, the command Paddle Serving users know."""

import sys

from ocr_serving.compat.convert_command import main

if __name__ == "__main__":
    sys.exit(main())
