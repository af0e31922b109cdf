"""Run generated Python without access to network, files or other processes."""
