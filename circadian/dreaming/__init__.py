"""Dreaming: the model writes its own lessons, and keeps what helps."""
