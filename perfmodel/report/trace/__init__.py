"""Timelines as traces for Perfetto."""
