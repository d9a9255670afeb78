"""Experiments: one claim a file, one function named like the file; `training reproduce NAME` runs them."""
