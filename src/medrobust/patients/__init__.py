"""The patient as unit: one decision from all of a patient's images, clean and attacked."""
