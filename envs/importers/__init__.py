"""Environments of other projects as tasksets, where their packages are installed."""
