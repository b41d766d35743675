"""The training loop: the Trainer subclass, checkpoints, stopping, and what makes CPUs fast."""
