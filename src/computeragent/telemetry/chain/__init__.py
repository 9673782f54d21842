"""A file of rows, each bound to the one before: what was written cannot be changed unseen."""
