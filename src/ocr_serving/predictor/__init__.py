"""The seam between the pipeline and inference: see base.Predictor."""
