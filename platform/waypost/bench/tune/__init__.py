"""``waypost bench tune``: what a sweep on Ray costs beside a plain loop over the same fits."""
