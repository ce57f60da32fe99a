"""Files of what a machine did: records, tests of links, traces, routed tokens, and the evidence that follows from them."""
