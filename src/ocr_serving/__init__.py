"""OCR as a pair of services: text detection (det), text recognition (rec) and the web service in front of them."""
