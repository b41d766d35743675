"""The page of a run, and the papers' tables."""
