"""Engines that need no library: one that works, and one for every way in which an engine can fail."""
