"""The yardstick of the shipped checkpoint: streets, looks and sizes that a recipe is chosen by."""
