"""Starts, supervises and describes one installation."""
