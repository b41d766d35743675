"""Inference with finished checkpoints: prediction, scores, model cards and export."""
