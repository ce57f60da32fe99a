"""Logs of training software: a module for each format."""
