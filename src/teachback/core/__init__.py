"""Foundations without any science: errors, files, locks, run folders, devices, tracking and arguments."""
