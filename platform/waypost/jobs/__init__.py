"""Commands as jobs of a Ray cluster: what travels with them, and how they are followed."""
