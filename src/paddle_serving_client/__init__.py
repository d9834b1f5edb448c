"""Paddle Serving 0.9's client package."""

from paddle_serving_client.client import Client
from paddle_serving_client.httpclient import HttpClient

__all__ = ["Client", "HttpClient"]
