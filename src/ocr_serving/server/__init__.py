"""The model server: predictors offered to other processes."""
