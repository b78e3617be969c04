"""Test images one by one: each model's answers, the attacked versions, and maps of what the model looks at."""
