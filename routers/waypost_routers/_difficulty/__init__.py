"""What the router difficulty knows of questions, and how it was learned."""
