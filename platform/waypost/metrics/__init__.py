"""Metrics of routers, computed from arrays; the package reads no files and builds no router."""
