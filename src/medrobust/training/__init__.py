"""Training and tuning of classifiers, clean and adversarial."""
