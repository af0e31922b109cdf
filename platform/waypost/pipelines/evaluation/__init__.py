"""The parts of ``waypost evaluate``: who is compared, with what, and what is measured."""
