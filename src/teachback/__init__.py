"""Teachback: compressing text classifiers by knowledge distillation."""

__version__ = "0.1.0"
