"""Paddle Serving 0.9's server package."""

_NOT_HERE = ("OpGraphMaker", "OpMaker", "OpSeqMaker", "Server")


def __getattr__(name: str) -> object:
    """Say what takes the place of the parts of which the original's scripts put a server together."""
    if name in _NOT_HERE:
        raise ImportError(
            f"There is no paddle_serving_server.{name} here; instead, a command serves a model: "
            "python3 -m paddle_serving_server.serve --model FOLDER --port 9292."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
