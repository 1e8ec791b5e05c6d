"""Where Q/DQ nodes go: one module a placement."""
