"""Where Q/DQ pairs stand, and what they are: one module a placement, and `registry` names all."""
