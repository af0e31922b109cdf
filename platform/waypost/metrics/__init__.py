"""Metrics of routers: numbers from arrays, no data reading, no router."""
