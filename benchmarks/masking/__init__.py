"""Small models with masked gradients, and sound ones: does the checklist tell them apart?"""
