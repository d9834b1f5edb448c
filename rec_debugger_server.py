"""The rec debugger service: the rec web service with its models in this process; --help shows its settings."""

from ocr_serving.web.command import main

if __name__ == "__main__":
    raise SystemExit(main("rec", in_process=True))
