"""Calls placed once and followed by workers, through a queue in Redis."""
