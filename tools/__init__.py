"""For those who work on the product; in no wheel."""
