"""Explanations: saliency maps and Grad-CAM before and after an attack, and loss landscapes."""
