"""`medrobust app`: a page on this machine that shows a model's answer for a file, and how an attack changes it."""
