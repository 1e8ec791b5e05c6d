"""Readers for labelled street scenes, and the scores that models get on them."""
