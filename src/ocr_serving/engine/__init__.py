"""Inference engines, one file each; see base.Engine."""
