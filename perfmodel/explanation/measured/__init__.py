"""Why a measured run is as fast as it is: what explains its speed, what to measure next, links that were measured."""
