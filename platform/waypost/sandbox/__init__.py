"""Run generated Python without network, files or processes of its own."""
