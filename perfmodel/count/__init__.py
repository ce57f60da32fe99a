"""Exact counts: parameters, operators, FLOPs, bytes and messages. No seconds here."""
