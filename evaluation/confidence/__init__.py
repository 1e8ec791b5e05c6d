"""How sure a difference of two scores is: intervals from a paired bootstrap over groups."""
