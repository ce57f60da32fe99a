"""When each operator runs: the order of passes, their simulation, and the spans of a timeline."""
