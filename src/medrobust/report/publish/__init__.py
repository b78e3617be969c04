"""Models for publication: checkpoints with model cards for the Hugging Face Hub."""
