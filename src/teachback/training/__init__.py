"""The training loop: Trainer subclass, checkpoints, stopping, and CPU optimisations."""
