"""The graph of GraphRouter: data, network, training, state."""
