"""HTML reports of runs, and reproduction of the papers' tables."""
