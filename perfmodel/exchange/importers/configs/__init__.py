"""Launch scripts and configurations of training software: a module for each format."""
