"""What is learned while serving: the states of users."""
