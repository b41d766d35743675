"""Drivers of stages 2 to 7."""
