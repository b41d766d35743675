"""Encoders and classifiers: loading, layers, attention and heads."""
