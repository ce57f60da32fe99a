"""Tests of launch files that are written."""
