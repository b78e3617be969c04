"""Detection of adversarial images: features, fitting, guard, metrics, and the detection stage."""
