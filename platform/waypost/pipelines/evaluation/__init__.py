"""The parts of ``waypost evaluate``: inputs, reference policies, measurement and output."""
