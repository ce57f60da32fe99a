"""What a server counts: the operators of a pass, the mixers among them, memory."""
