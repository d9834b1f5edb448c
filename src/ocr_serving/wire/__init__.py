"""Paddle Serving's wire formats: bytes in, objects out, no sockets."""
