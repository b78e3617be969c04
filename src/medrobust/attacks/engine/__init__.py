"""Run suites of attacks: schedule and stream images, record attempts, resume interrupted evaluations."""
