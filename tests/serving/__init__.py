"""Tests of the serving law."""
