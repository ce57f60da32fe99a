"""The project's own figures: gallery, scores, speed and memory bars."""
