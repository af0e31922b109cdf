"""How fast ``waypost data responses`` asks, beside simpler ways, against one slow endpoint."""
