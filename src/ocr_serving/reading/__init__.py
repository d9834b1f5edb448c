"""Rules of reading a page, one a file: what detection, recognition and the pipeline decide by."""
