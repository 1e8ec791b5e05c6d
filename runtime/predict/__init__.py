"""`icnet predict`: labels images, folders and videos."""
