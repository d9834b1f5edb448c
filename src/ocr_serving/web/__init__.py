"""The web service: HTTP in, texts out."""
