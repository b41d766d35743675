"""Finished checkpoints at work: prediction, scores, model cards and export."""
