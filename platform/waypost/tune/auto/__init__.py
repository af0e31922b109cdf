"""The router auto: compose registered routers into one that is best on validation."""
