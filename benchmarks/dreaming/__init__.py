"""Dreaming, on a world in which there is something to dream of."""
