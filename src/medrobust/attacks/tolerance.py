"""The rounding that distances of adversarial images may have; a module of its own, because it needs no torch."""

#: Rounding that a float32 projection may leave, as a share of eps.
TOLERANCE = 1e-5
