"""Counts of served passes -> seconds: the parts of a pass, and its operators one by one."""
