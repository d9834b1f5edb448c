"""Paddle Serving 0.9's programming interface over our parts, for files that were written for it.

Names, argument order, defaults and meaning are the original's; the quirks it is known for are fixed.
"""
